"""The paper's main table (Tables 1 and 2): 5 students, 6 rows each, 14 benchmarks."""

from __future__ import annotations

import csv

from rilbench.columns import COLUMNS
from rilbench.resources import resource
from rilbench.table.rows import TableRow, average


def paper_rows() -> list[TableRow]:
    """Return the paper's 30 rows in the file's order; an empty cell is None."""
    with resource("results/paper/main_table.csv").open(encoding="utf-8", newline="") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> TableRow:
    scores = {column: float(line[column]) if line[column] else None for column in COLUMNS}
    return TableRow(
        source="paper",
        student=line["student"],
        method=line["method"],
        teacher=line["teacher"],
        suite="paper",
        scores=scores,
        average=average(scores, COLUMNS),
    )
