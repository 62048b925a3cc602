"""Runs and evaluations as lists, and one of them in full."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, utc_now
from rilbench.table import inspect_ledger as show
from rilbench.table.inspect_ledger import as_json, everything, find, in_full, overview

RUN = Run(
    **{"name": "first", "path": "/runs/first", "recipe_fingerprint": "r" * 16},
    **{"recipe_yaml": "seed: 3\n", "student": "nano", "method": "ril", "teacher": "both"},
    **{"status": "finished", "created": utc_now(), "seed": 3},  # type: ignore[arg-type]
    metrics={"steps": 30, "step_seconds": 2.5},
    curves={"kl": [0.1, 0.2]},
)
SCORE = Score(
    **{"benchmark": "MMStar", "kit": "vlmevalkit", "kit_version": "1", "dataset": "MMStar"},
    **{"value": 50.0, "questions": 40, "answered": 40, "missing": 1},  # type: ignore[arg-type]
    metric="Overall",
    data_sha256="a" * 64,
    data_state="unverified",
)
EVALUATION = Evaluation(
    **{"path": "/m\x1b[31m", "fingerprint": "abcdef0123", "student": "nano", "method": "ril"},
    **{"teacher": "both", "suite": "nano", "created": utc_now(), "run": "other"},
    settings={"prompts_sha256": {"MMStar": "b" * 64}},
    scores=(SCORE,),
    samples=(Sample(benchmark="MMStar", question_id="1", prompt_hash="h", response="secret"),),
)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with Ledger(tmp_path / "l.db") as ledger:
        ledger.record_run(RUN)
        ledger.record(EVALUATION)
    return tmp_path / "l.db"


def text(parts: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for part in parts:  # type: ignore[attr-defined]
        console.print(part)
    return console.export_text()


def test_the_lists(db: Path) -> None:
    with Ledger.open_read(db) as ledger:
        shown = text(overview(everything(ledger), db))
    assert "\x1b" not in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["first", "nano", "ril", "both", "3", "finished", "30"] in [line[:7] for line in lines]
    assert ["1", "nano", "ril", "both", "nano", "vlmevalkit", "1", "50.0"] in [
        line[:8] for line in lines
    ]


def test_an_empty_ledger_says_what_writes_to_it() -> None:
    assert "rilbench train" in text(overview([], Path("no.db")))


def test_a_run_in_full(db: Path) -> None:
    with Ledger.open_read(db) as ledger:
        shown = text(in_full(find(ledger, "first")))
    for words in ("/runs/first", "step_seconds", "2.5", "kl", "0.2", "seed: 3"):
        assert words in shown


def test_an_evaluation_in_full(db: Path) -> None:
    with Ledger.open_read(db) as ledger:
        shown = text(in_full(find(ledger, "1")))
    for words in ("abcdef0123", "MMStar bbbbbbbbbbbb", "unverified aaaaaaaa", SCORE.comparability):
        assert words in shown
    assert "b" * 13 not in shown
    assert "secret" not in shown


def test_json_has_the_provenance_and_no_responses(db: Path) -> None:
    with Ledger.open_read(db) as ledger:
        run, evaluation = json.loads(as_json(everything(ledger)))
    assert (run["kind"], run["curves"]) == ("run", {"kl": [0.1, 0.2]})
    assert (evaluation["kind"], evaluation["id"]) == ("evaluation", 1)
    assert evaluation["scores"][0]["comparability"] == SCORE.comparability
    assert "samples" not in evaluation


def test_what_is_not_there_or_not_one_is_refused(db: Path) -> None:
    with Ledger(db) as ledger:
        with pytest.raises(UserError, match="no evaluation 'none'"):
            find(ledger, "none")
        ledger.record_run(dataclasses.replace(RUN, path="/elsewhere/first"))
        with pytest.raises(UserError, match=r"several runs 'first': .*give a path"):
            find(ledger, "first")
        assert find(ledger, "/elsewhere/first").path == "/elsewhere/first"


def test_numbers_without_the_digits_of_their_rounding():
    assert show._fact({"ril": 43.14999999999999, "rate": 1e-06}) == "ril 43.15, rate 1e-06"
