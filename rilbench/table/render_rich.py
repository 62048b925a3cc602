"""The table for a terminal."""

from __future__ import annotations

import io
import itertools

from rilbench.table.footnotes import UNLIKE
from rilbench.table.formatting import NONE, label, lines, printable
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
_NEUTRAL = (NONE, UNLIKE, "0.0", "?")


def terminal(table: Table, colour: bool) -> str:
    """Return the table as a terminal shows it; with escape sequences if colour is wanted."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.HORIZONTALS, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", max_width=_NAMES_WIDTH, overflow="fold")
    for column in table.columns:
        heading = _SHORT.get(column, printable(column))
        grid.add_column(Text(heading), justify="right", no_wrap=True)
    mean = "\n".join(["mean of", *table.over]) if table.over else table.mean
    grid.add_column(mean, justify="right", no_wrap=True, style="bold")
    for source, section in itertools.groupby(table.rows, key=lambda row: row.source):
        grid.add_section()
        grid.add_row(Text(source.upper(), style="dim"))
        for title, rows in itertools.groupby(section, key=_title):
            grid.add_row(Text(printable(title), style="bold"))
            for row in rows:
                for name, cells in lines(row, table.columns):
                    head = Text(f"    {name}", style="dim") if name else Text(f"  {label(row)}")
                    grid.add_row(head, *(Text(cell, style=_style(name, cell)) for cell in cells))
    text = io.StringIO()
    console = Console(
        file=text,
        width=1000,  # The table takes the width it needs; no terminal's width cuts it.
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
