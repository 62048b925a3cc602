"""The paper's rows are the paper's numbers, cell by cell."""

import csv
import statistics

import pytest

from rilbench.columns import COLUMNS
from rilbench.resources import resource
from rilbench.table import paper
from rilbench.table.paper import paper_rows
from rilbench.table.rows import average


def test_cell_by_cell() -> None:
    with resource("results/paper/main_table.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["student", "method", "teacher", "source", *COLUMNS]
    rows = paper_rows()
    assert len(rows) == len(lines) == 30
    for row, line in zip(rows, lines, strict=True):
        assert [row.student, row.method, row.teacher] == line[:3]
        assert [f"{row.scores[column]:.1f}" for column in COLUMNS] == line[4:]
        assert (row.source, row.suite, row.difference) == ("paper", "paper", None)
        assert row.average == pytest.approx(statistics.fmean(map(float, line[4:])))


def test_an_empty_cell_is_none() -> None:
    line = {"student": "s", "method": "m", "teacher": "t", **dict.fromkeys(COLUMNS, "50")}
    assert paper._row(line).average == 50.0
    row = paper._row({**line, "SEED": ""})
    assert row.scores["SEED"] is None
    assert row.average is None


def test_average() -> None:
    assert average({"a": 0.0, "b": 50.0, "c": None}, ["a", "b"]) == 25.0
    assert average({"a": 0.0, "b": 50.0, "c": None}, ["a", "c"]) is None
    assert average({"a": 0.0}, ["a", "b"]) is None
    assert average({}, []) is None
