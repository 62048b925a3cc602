"""The lines of a row as text: its numbers, and beneath them what stands behind them."""

from __future__ import annotations

from collections.abc import Iterator

from rilbench.benchmark_names import COLUMNS
from rilbench.stats import Interval
from rilbench.table.footnotes import ODD, REPRODUCED, UNLIKE
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, TableRow

NONE = "-"
ALL = (*COLUMNS, AVERAGE)
_CROSS_CHECK = "lmms-eval"
"""The kit whose rows say so; the others are VLMEvalKit's."""


def values(row: TableRow) -> list[str]:
    """A row's numbers with one digit and their mark, "-" where there is none."""
    return [_marked(row, column) for column in ALL]


def _marked(row: TableRow, column: str) -> str:
    odd = column in row.cells and row.cells[column].odd
    return f"{number(row.value(column))}{ODD if odd else ''}"


def number(value: float | None) -> str:
    """With one digit; "-" for none."""
    return NONE if value is None else f"{value:.1f}"


def signed(value: float | None) -> str:
    """With one digit and its sign; "-" for none."""
    if value is None:
        return NONE
    rounded = round(value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def beneath(row: TableRow) -> Iterator[tuple[str, list[str]]]:
    """Yield what stands under a measured row, by name: differences, and how sure they are."""
    if row.difference is not None:
        yield "from start", [difference(row, column) for column in ALL]
    cells = [row.cells[column] for column in ALL] if row.cells else []
    beside_paper = any(cell.paper is not None for cell in cells)
    if beside_paper:
        marks = [REPRODUCED if cell.reproduced else "" for cell in cells]
        pairs = zip(cells, marks, strict=True)
        yield "from paper", [f"{signed(cell.difference)}{mark}" for cell, mark in pairs]
    if any(cell.questions for cell in cells):
        yield "± questions", [half(cell.questions) for cell in cells]
    if row.seeds >= FEWEST_SEEDS:
        yield "± runs", [half(cell.runs) for cell in cells]
    elif beside_paper:
        yield "± runs", ["?" if cell.value is not None else NONE for cell in cells]


def difference(row: TableRow, column: str) -> str:
    """From the row's start: signed, "≠" for scores that are not alike, "-" for none."""
    if row.difference is None:
        return ""
    return UNLIKE if column in row.unlike else signed(row.difference[column])


def half(interval: Interval | None) -> str:
    """Half of an interval's width; "-" for none."""
    return NONE if interval is None else f"{(interval.high - interval.low) / 2:.1f}"


def label(row: TableRow) -> str:
    """Method and teacher, where the numbers are traced to, and how many runs they are of."""
    name = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
    return printable(name) + cross_check(row) + trace(row)


def trace(row: TableRow) -> str:
    """The number of the evaluation, for `rilbench show`; of several seeds how many there are."""
    if row.seeds > 1:
        return f" (n={row.seeds})"
    numbers = dict.fromkeys(each.id for each in row.evaluations if each.id is not None)
    return f" #{next(iter(numbers))}{'…' if len(numbers) > 1 else ''}" if numbers else ""


def cross_check(row: TableRow) -> str:
    """Names the kit where it is not the usual one."""
    return f" ({_CROSS_CHECK})" if row.kit == _CROSS_CHECK else ""


def printable(text: str) -> str:
    """Return a label without line feeds and escape sequences: it comes from a model's folder."""
    return "".join(mark if mark.isprintable() else " " for mark in text)
