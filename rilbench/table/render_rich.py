"""The table for a terminal."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rilbench.benchmark_names import COLUMNS
from rilbench.table.footnotes import UNLIKE
from rilbench.table.formatting import NONE, beneath, label, printable, values
from rilbench.table.types import Table, TableRow

if TYPE_CHECKING:
    from rich.text import Text

# At most five wide, so that 14 columns and the names fit into 100.
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
_NAMES_WIDTH = 18  # A longer name goes on in the next line.
_SIGNED = ("from start", "from paper")
_QUIET = (NONE, UNLIKE, "0.0", "?")


def terminal(table: Table, colour: bool) -> str:
    """Return the table as a terminal shows it; with escape sequences where colour is wanted."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.HORIZONTALS, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", max_width=_NAMES_WIDTH, overflow="fold")
    for column in COLUMNS:
        grid.add_column(_SHORT.get(column, column), justify="right", no_wrap=True)
    over = "\n".join(["mean of", *table.over]) if table.over else "mean"
    grid.add_column(over, justify="right", no_wrap=True, style="bold")
    for source, section in itertools.groupby(table.rows, key=lambda row: row.source):
        grid.add_section()
        grid.add_row(Text(source.upper(), style="dim"))
        for title, rows in itertools.groupby(section, key=_title):
            grid.add_row(Text(printable(title), style="bold"))
            for row in rows:
                for cells in _lines(row):
                    grid.add_row(*cells)
    text = io.StringIO()
    console = Console(
        file=text,
        width=1000,  # The table takes what it needs; no terminal's width cuts it.
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(grid)
    for note in table.notes:
        console.print(Text(printable(note), style="dim"))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _title(row: TableRow) -> str:
    if row.source == "measured" and row.suite != "paper":
        return f"{row.student}, {row.suite} suite"
    return row.student if row.origin[:7] != "Table 5" else f"{row.student}, {row.origin}"


def _lines(row: TableRow) -> Iterator[list[Text]]:
    """Yield the cells of a row and, beneath it, of what stands behind it."""
    from rich.text import Text

    yield [Text(f"  {label(row)}"), *(Text(cell, style=_style(cell, "")) for cell in values(row))]
    for name, cells in beneath(row):
        if name in _SIGNED:
            styled = [Text(cell, style=_style(cell, "red")) for cell in cells]
        else:
            styled = [Text(cell, style="dim not bold") for cell in cells]
        yield [Text(f"    {name}", style="dim"), *styled]


def _style(cell: str, minus: str) -> str:
    """Return the style of a number: gains green, losses as told, nothing at all dim."""
    if cell in _QUIET:
        return "dim"
    return "green" if cell.startswith("+") else minus
