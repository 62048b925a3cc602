"""Exported files hold every score and sample, and no formula."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from report_place import evaluation, sample
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.ledger.housekeeping import tag

TEXT = '=HYPERLINK(\x1b[2J\nthe second line, "quoted"'


@pytest.fixture
def db(tmp_path: Path) -> Path:
    samples = [
        sample("MMStar", "a", response=TEXT, tokens=None),
        sample("MMStar", "b", score=0.0, seconds=0.5),
        sample("BLINK", "a", score=None),
    ]
    path = tmp_path / "l.db"
    with Ledger(path) as ledger:
        ledger.record(evaluation(samples))
        ledger.record(evaluation(samples, fingerprint="trained", student="@cmd", seed=3))
        tag(ledger, [ledger.evaluations()[0].id or 0], "final", remove=False)
    return path


def _export(db: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["export", *arguments, "--db", str(db)])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_samples_in_both_formats(db: Path, tmp_path: Path) -> None:
    assert "6 samples of 2 evaluations" in _export(db, "samples", "--out", f"{tmp_path}/s.parquet")
    _export(db, "samples", "--out", f"{tmp_path}/s.csv")
    whole = pd.read_parquet(tmp_path / "s.parquet")
    assert whole["response"][0] == TEXT
    assert whole["score"].isna().tolist() == [False, False, True] * 2
    assert whole["seed"].dropna().tolist() == [3, 3, 3]
    with Ledger.open_read(db) as ledger:
        for number in (1, 2):
            expected = [vars(each) for each in ledger.samples(number)]
            part = whole[whole["evaluation_id"] == number]
            found = part[list(expected[0])].astype(object).where(part.notna(), None)
            assert found.to_dict("records") == expected
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == list(whole.columns)
    assert rows[0]["response"] == '\'=HYPERLINK( [2J\nthe second line, "quoted"'
    assert [row["student"] for row in rows] == ["nano"] * 3 + ["'@cmd"] * 3
    assert [row["score"] for row in rows[:3]] == ["1.0", "0.0", ""]
    assert not [*tmp_path.glob(".*")]


def test_scores_of_some(db: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    _export(db, "scores", "--out", str(out), "--tag", "final", "--benchmarks", "mmstar")
    (row,) = pd.read_csv(out).to_dict("records")
    assert (row["evaluation_id"], row["benchmark"], row["value"]) == (2, "MMStar", 50.0)
    assert len(row["comparability"]) == 12
    _export(db, "scores", "--out", str(out), "--evaluation", "1")
    assert set(pd.read_csv(out)["evaluation_id"]) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scores", "--out", "x.xlsx"), r"x\.xlsx is no format; end its name in \.csv or"),
        (("models", "--out", "x.csv"), "no table 'models' to export; take scores or samples"),
        (("scores", "--out", "none/x.csv"), "cannot be written"),
        (("scores", "--out", "x.csv", "--tag", "z"), "no evaluation has the tag 'z'"),
    ],
)
def test_what_cannot_be_exported(db: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _export(db, *arguments)
