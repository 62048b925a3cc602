"""Synthetic stand-ins in the hub's layout: errors name file and row; two writers do no harm."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.kits import lmmseval_dataset as hub
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.nano.data import write_benchmarks

Row = dict[str, str]


@pytest.fixture(scope="module")
def tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tsv")
    write_benchmarks(folder, "dev", 14)
    return folder


def only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert only this file, which is quicker."""
    chosen = tuple(conversion for conversion in hub._CONVERSIONS if conversion.file == name)
    monkeypatch.setattr(hub, "_CONVERSIONS", chosen)


def changed(file: Path, folder: Path, change: Any) -> None:
    """Write a copy with some rows changed."""
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = change(list(csv.DictReader(stream, delimiter="\t")))
    with (folder / file.name).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def without(column: str) -> Any:
    return lambda rows: [{k: v for k, v in row.items() if k != column} for row in rows]


def third(**cells: str) -> Any:
    return lambda rows: [row | cells if i == 2 else row for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("AI2D_TEST", without("answer"), r"AI2D_TEST\.tsv has no column 'answer'; make"),
        ("AI2D_TEST", without("index"), r"AI2D_TEST\.tsv has no column 'index'; make"),
        ("AI2D_TEST", without("image"), r"AI2D_TEST\.tsv has no column 'image'; make"),
        ("MMVet", without("category"), r"MMVet\.tsv has no column 'category'; make"),
        ("MathVista_MINI", without("skills"), r"has no column 'skills'; make"),
        ("AI2D_TEST", third(answer="Z"), r"AI2D_TEST\.tsv: row 3 \(index \S+\) cannot"),
        ("MMStar", third(image="iVBORw0KG"), r"MMStar\.tsv: row 3 \(.*Error: .*; make"),
        ("MMStar", third(image="['"), r"MMStar\.tsv: row 3 \(.*SyntaxError"),
        ("MathVista_MINI", third(skills="[a"), r"MathVista_MINI\.tsv: row 3 \("),
        ("MMBench_DEV_EN", third(index="x"), r"MMBench_DEV_EN\.tsv: row 3 \(index x\)"),
        ("BLINK", lambda rows: rows[:13], r"BLINK\.tsv has 13 questions and .* needs 14"),
        (
            "MMStar",
            lambda rows: [*rows, rows[0]],
            r"MMStar\.tsv: row 15 \(index \S+\) has the index of another",
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_row(
    tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Any, said: str
) -> None:
    only(name, monkeypatch)
    changed(tsv / f"{name}.tsv", tmp_path, change)
    with pytest.raises(UserError, match=said):
        write_hub(tmp_path, tmp_path / "hub")
    assert list((tmp_path / "hub").rglob("*.parquet")) == [], "nothing is left over"
    assert [path.name for path in (tmp_path / "hub").iterdir()] == ["building"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.tsv is missing"):
        write_hub(tmp_path, tmp_path / "hub")


def test_another_may_be_quicker(tsv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only("MMStar", monkeypatch)
    write, others = hub._write, []

    def overtaken(*given: Any) -> None:
        """A second writer begins and ends while the first is at work."""
        if not others:
            others.append(None)
            others.append(write_hub(tsv, tmp_path))
        write(*given)

    monkeypatch.setattr(hub, "_write", overtaken)
    folder = write_hub(tsv, tmp_path)
    assert others[1] == folder
    assert sorted(tmp_path.iterdir()) == sorted([folder, tmp_path / "building"])
    assert list(folder.rglob("*.parquet"))
