"""The paper's rows are the paper's numbers, cell by cell, as the ledger has them."""

import csv
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger import Ledger
from rilbench.resources import resource
from rilbench.table.paper_rows import PaperCells, ablation_rows, main_rows, other_rows, same_name
from rilbench.table.types import average


@pytest.fixture(scope="module")
def ledger() -> Iterator[Ledger]:
    with Ledger.open_read(Path("no such file")) as opened:
        yield opened


def lines(file: str) -> list[list[str]]:
    with resource(f"results/paper/{file}.csv").open(encoding="utf-8") as stream:
        return list(csv.reader(stream))


def text(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def test_the_main_table_cell_by_cell(ledger: Ledger) -> None:
    header, *expected = lines("main_table")
    assert header == ["student", "method", "teacher", "source", *PAPER_14]
    rows = main_rows(ledger)
    assert len(rows) == len(expected) == 30
    for row, line in zip(rows, expected, strict=True):
        assert [row.student, row.method, row.teacher, row.origin] == line[:4]
        assert [text(row.scores[column]) for column in PAPER_14] == line[4:]
        assert (row.source, row.suite, row.difference) == ("paper", "paper", None)
        assert row.average == pytest.approx(statistics.fmean(map(float, line[4:])))


def test_tables_3_and_4_cell_by_cell(ledger: Ledger) -> None:
    expected = [*lines("other_open_models")[1:], *lines("large_and_closed_models")[1:]]
    rows = other_rows(ledger)
    assert len(rows) == len(expected)
    for row, line in zip(rows, expected, strict=True):
        assert [row.student, row.origin] == line[:2]
        assert [text(row.scores[column]) for column in PAPER_14] == line[2:]
        whole = all(line[2:])
        assert (row.average is not None) == whole


def test_the_ablations_cell_by_cell(ledger: Ledger) -> None:
    expected = [(f"Table {a}", s, setting, b, v) for a, s, setting, b, v in lines("ablations")[1:]]
    found = [
        (row.origin, row.student, row.method, column, text(row.scores[column]))
        for row in ablation_rows(ledger)
        for column in PAPER_14
        if row.scores[column] is not None
    ]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("ours", "papers"),
    [
        ("qwen2.5-vl-7b", "Qwen2.5-VL-7B"),
        ("Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B"),
        ("internvl3-8b", "InternVL3-8B"),
        ("dr-grpo", "Dr.GRPO"),
    ],
)
def test_one_model_by_several_names(ours: str, papers: str) -> None:
    assert same_name(ours) == same_name(papers)
    assert same_name("qwen2.5-vl-7b") != same_name("qwen2.5-vl-3b")


def test_the_papers_cells_are_found_by_our_labels(ledger: Ledger) -> None:
    cells = PaperCells([*main_rows(ledger), *other_rows(ledger)])
    assert cells.of("qwen2.5-vl-7b", "base", "none")["AI2D"] == 83.9
    assert cells.of("qwen2.5-vl-7b", "ril", "both") != cells.of("qwen2.5-vl-7b", "ril", "72b")
    assert cells.of("Qwen2.5-VL-72B-Instruct", "base", "none")
    assert cells.of("nano", "base", "none") == {}


def test_average() -> None:
    assert average({"a": 0.0, "b": 50.0, "c": None}, ["a", "b"]) == 25.0
    assert average({"a": 0.0, "b": 50.0, "c": None}, ["a", "c"]) is None
    assert average({"a": 0.0}, ["a", "b"]) is None
    assert average({}, []) is None
