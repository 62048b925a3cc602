"""A row's lines as text: its numbers, and below them the differences and intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from rilbench.printable import printable
from rilbench.stats import Interval
from rilbench.table.footnotes import INCOMPLETE, ODD, REPRODUCED, UNLIKE
from rilbench.table.rounding import NONE, number, signed
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, TableCell, TableRow

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_CROSS_CHECK = "lmms-eval"
"""The kit that rows are marked with; all other rows are VLMEvalKit's."""


def lines(row: TableRow, benchmarks: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield a row's lines: first its numbers, then what belongs to a measured row.

    Args:
        row: of the table.
        benchmarks: the columns; the average follows them.

    Yields:
        The line's name, empty for the numbers themselves, and a text for each column.
    """
    columns = (*benchmarks, AVERAGE)
    cells = [row.cell(column) for column in columns]
    numbers = [number(row.value(column)) for column in columns]
    yield "", [n + _marks(cell) for n, cell in zip(numbers, cells, strict=True)]
    if row.difference is not None:
        yield (
            "from start",
            [UNLIKE if c in row.unlike else signed(row.difference.get(c)) for c in columns],
        )
    has_paper = any(cell.paper is not None for cell in cells)
    if has_paper:
        marks = [REPRODUCED if cell.reproduced else "" for cell in cells]
        changes = [signed(cell.difference) for cell in cells]
        yield "from paper", [c + mark for c, mark in zip(changes, marks, strict=True)]
    if any(cell.questions for cell in cells):
        yield "± questions", [_half(cell.questions) for cell in cells]
    if row.cells and row.seeds >= FEWEST_SEEDS:
        yield "± runs", [_half(cell.runs) for cell in cells]
    elif has_paper:
        yield "± runs", ["?" if cell.value is not None else NONE for cell in cells]


def _marks(cell: TableCell) -> str:
    incomplete = cell.incomplete and cell.value is not None
    return (INCOMPLETE if incomplete else "") + (ODD if cell.odd else "")


def _half(interval: Interval | None) -> str:
    """Return half of an interval's width; "-" for none."""
    return NONE if interval is None else f"{(interval.high - interval.low) / 2:.1f}"


def label(row: TableRow) -> str:
    """Return method and teacher with the evaluations behind them."""
    name = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
    return printable(name) + cross_check(row) + trace(row)


def trace(row: TableRow) -> str:
    """Return the number of the evaluation, for `rilbench show`; the count of several seeds."""
    if row.seeds > 1:
        return f" (n={row.seeds})"
    ids = [str(number) for number in evaluation_ids(row)]
    return f" #{ids[0]}{'…' if len(ids) > 1 else ''}" if ids else ""


def evaluation_ids(row: TableRow) -> list[int]:
    """Return the numbers of the row's evaluations, newest first."""
    return list(dict.fromkeys(e.id for e in row.evaluations if e.id is not None))


def cross_check(row: TableRow) -> str:
    """Return the kit's name in brackets if it is not the usual kit."""
    return f" ({_CROSS_CHECK})" if row.kit == _CROSS_CHECK else ""


def grid(*heads: str, right: Collection[str] = ()) -> RichTable:
    """Return an empty table without lines, for a terminal.

    Args:
        heads: the headings.
        right: headings of columns that are aligned to the right.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    return table
