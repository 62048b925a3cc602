"""The table for a terminal."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from rilbench.printable import printable
from rilbench.table.footnotes import UNLIKE
from rilbench.table.formatting import label, lines
from rilbench.table.rounding import NONE
from rilbench.table.types import Table, TableRow

# At most five characters wide, so that 14 columns and the names fit into 100.
_SHORT = {
    "ChartQA": "Chart\nQA",
    "MathVista": "Math\nVista",
    "MMB-CN": "MMB\n-CN",
    "MM-Vet": "MM\n-Vet",
    "MM-Vet-v2": "MM\nVet2",
    "MMMU-Pro": "MMMU\n-Pro",
    "MMStar": "MM\nStar",
    "SEED2+": "SEED\n2+",
}
_NAMES_WIDTH = 18  # A longer name continues on the next line.
_MODEL_WIDTH = 13
"""Of a model's column in a narrow terminal: a number, its mark and its change."""
_GAP = 2
"""Between columns: a blank, and the place of a line that is not drawn."""
_NEUTRAL = (NONE, UNLIKE, "0.0", "?")


def terminal(table: Table, colour: bool, width: int | None) -> str:
    """Return the table as a terminal shows it.

    Args:
        table: to be written.
        colour: whether it has escape sequences.
        width: characters of a line; where the table has more, the benchmarks are rows and the
            models columns. None: any.
    """
    text = _printed([_wide(table)], colour)
    if width is not None and max(cell_len(line) for line in text.splitlines()) > width:
        text = _printed(_narrow(table, width), colour)
    notes = _printed([Text(printable(note), style="dim") for note in table.notes], colour, width)
    return "\n".join(line.rstrip() for line in (text + notes).splitlines())


def _printed(parts: Iterable[RichTable | Text], colour: bool, width: int | None = None) -> str:
    text = io.StringIO()
    console = Console(
        file=text,
        width=width or 1000,  # A table takes the width it needs; no terminal's width cuts it.
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    return text.getvalue()


def _wide(table: Table) -> RichTable:
    """Return one line for each model, and the lines of its details."""
    grid = RichTable(box=box.HORIZONTALS, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", max_width=_NAMES_WIDTH, overflow="fold")
    for column in table.columns:
        heading = _SHORT.get(column) or printable(column)
        grid.add_column(Text(heading), justify="right", no_wrap=True)
    mean = "\n".join(["mean of", *map(printable, table.over)]) if table.over else table.mean
    grid.add_column(Text(mean), justify="right", no_wrap=True, style="bold")
    for source, section in itertools.groupby(table.rows, key=lambda row: row.source):
        grid.add_section()
        grid.add_row(Text(source.upper(), style="dim"))
        for title, rows in itertools.groupby(section, key=_title):
            grid.add_row(Text(printable(title), style="bold"))
            for row in rows:
                for name, cells in lines(row, table.columns):
                    if name and not table.details:
                        continue
                    head = Text(f"    {name}", style="dim") if name else Text(f"  {label(row)}")
                    grid.add_row(head, *(Text(cell, style=_style(name, cell)) for cell in cells))
    return grid


def _narrow(table: Table, width: int) -> Iterator[RichTable | Text]:
    """Yield tables of a few models each, as many as fit, with a line for each benchmark."""
    names = [printable(name) for name in (*table.columns, table.mean)]
    left = max(map(cell_len, names)) + _GAP
    at_once = max(1, (width - left) // (_MODEL_WIDTH + _GAP))
    for (source, title), group in itertools.groupby(
        table.rows, key=lambda row: (row.source, _title(row))
    ):
        rows = list(group)
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            grid = RichTable(box=box.HORIZONTALS, show_edge=False, padding=(0, 1, 0, 0))
            grid.add_column("")
            for row in some:
                heading = Text(label(row))
                grid.add_column(heading, justify="right", width=_MODEL_WIDTH, overflow="fold")
            numbers = [_with_change(row, table) for row in some]
            for place, name in enumerate(names):
                style = "bold" if place == len(table.columns) else ""
                grid.add_row(Text(name), *(cells[place] for cells in numbers), style=style)
            yield Text(f"{source.upper()} {printable(title)}", style="bold")
            yield grid
            yield Text()


def _with_change(row: TableRow, table: Table) -> list[Text]:
    """Return a model's numbers, each with the change from its start where there is one."""
    by_name = dict(lines(row, table.columns))
    changes = by_name.get("from start") if table.details else None
    cells = [Text(cell) for cell in by_name[""]]
    for cell, change in zip(cells, changes or (), strict=False):
        cell.append(f" {change}", style=_style("from start", change))
    return cells


def _title(row: TableRow) -> str:
    if row.source == "measured" and row.suite != "paper":
        return f"{row.student}, {row.suite} suite"
    return f"{row.student}, {row.origin}" if row.origin.startswith("Table 5") else row.student


def _style(line: str, cell: str) -> str:
    """Return a cell's style: gains green, losses red, intervals and nothing at all dim."""
    if line.startswith("±"):
        return "dim not bold"
    if cell in _NEUTRAL:
        return "dim"
    if cell.startswith("+"):
        return "green"
    return "red" if line else ""
