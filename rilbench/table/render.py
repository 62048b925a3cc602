"""Write the table down: for a terminal, for a document, for a program."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rilbench.columns import COLUMNS
from rilbench.errors import UserError
from rilbench.table.rows import TableRow

if TYPE_CHECKING:
    from rich.text import Text

    from rilbench.ledger import Evaluation

_NONE = "-"
_CROSS_CHECK = "lmms-eval"
"""The kit whose rows say so; the others are VLMEvalKit's."""
_UNLIKE = "≠"

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


def render(rows: Sequence[TableRow], table_format: str, *, colour: bool = False) -> str:
    """Return the table as text, without a line feed at its end.

    Nothing is cut to the width of a terminal. Colour (escape sequences) is only for "rich", and
    for the caller to ask for when the output is a terminal.

    Raises:
        UserError: there is no such format.
    """
    if table_format == "rich":
        return _rich(rows, colour)
    if table_format not in _PLAIN:
        known = ", ".join(FORMATS)
        raise UserError(f"there is no table format {table_format!r}; take one of {known}")
    return _PLAIN[table_format](rows)


def _json(rows: Sequence[TableRow]) -> str:
    names = ("source", "student", "method", "teacher", "suite")
    listed = [
        {
            **{name: getattr(row, name) for name in names},
            "suite": row.suite + _cross_check(row),
            "scores": {column: row.scores[column] for column in COLUMNS},
            "average": row.average,
        }
        for row in rows
    ]
    return json.dumps(listed, indent=2, ensure_ascii=False, allow_nan=False)


def _markdown(rows: Sequence[TableRow]) -> str:
    names = ("source", "student", "method", "teacher", "suite")
    lines = [[*names, *COLUMNS, "average"], ["---"] * len(names) + ["---:"] * (len(COLUMNS) + 1)]
    for row in rows:
        cells = [_escaped(getattr(row, name)) for name in names]
        cells[-1] += _cross_check(row)
        for column in (*COLUMNS, "average"):
            value, difference = _value(row, column), _difference(row, column)
            cells.append(f"{value} ({difference})" if difference not in ("", _NONE) else value)
        lines.append(cells)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "\n".join(f"- {_escaped(note)}" for note in _notes(rows))
    return f"{table}\n\n{notes}" if notes else table


def _escaped(text: str) -> str:
    """Return ``text`` so that it stays in its cell."""
    text = _printable(text)
    for mark, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, code)
    return text.replace("\\", "\\\\").replace("|", "\\|")


_PLAIN: dict[str, Callable[[Sequence[TableRow]], str]] = {"markdown": _markdown, "json": _json}

FORMATS = ("rich", *_PLAIN)
"""The names that :func:`render` takes."""


def _rich(rows: Sequence[TableRow], colour: bool) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.HORIZONTALS, show_edge=False, padding=0, header_style="bold")
    table.add_column("", max_width=_NAMES_WIDTH, overflow="fold")
    for column in COLUMNS:
        table.add_column(_SHORT.get(column, column), justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True, style="bold")

    sections = itertools.groupby(rows, key=lambda row: row.source)
    for source, section in sections:
        table.add_section()
        table.add_row(Text(source.upper(), style="dim"))
        groups = itertools.groupby(section, key=lambda row: (row.student, row.suite))
        for (student, suite), group in groups:
            title = student if suite == "paper" else f"{student}, {suite} suite"
            table.add_row(Text(_printable(title), style="bold"))
            for row in group:
                for cells in _lines(row):
                    table.add_row(*cells)

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
    console.print(table)
    for note in _notes(rows):
        console.print(Text(_printable(note), style="dim"))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _lines(row: TableRow) -> Iterator[list[Text]]:
    """Yield the cells of a row and, if it has them, of its differences beneath."""
    from rich.text import Text

    columns = (*COLUMNS, "average")
    values = [_value(row, column) for column in columns]
    yield [Text(f"  {_label(row)}"), *(Text(cell, style=_style(cell, "")) for cell in values)]
    if row.difference is not None:
        signed = [_difference(row, column) for column in columns]
        cells = [Text(cell, style=_style(cell, "red")) for cell in signed]
        yield [Text("    from start", style="dim"), *cells]


def _style(cell: str, minus: str) -> str:
    """Return the style of a number: gains green, losses as told, nothing at all dim."""
    if cell in (_NONE, _UNLIKE, "0.0"):
        return "dim"
    return "green" if cell.startswith("+") else minus


def _label(row: TableRow) -> str:
    label = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
    return _printable(label) + _cross_check(row)


def _cross_check(row: TableRow) -> str:
    other = row.evaluation is not None and row.evaluation.kit == _CROSS_CHECK
    return f" ({_CROSS_CHECK})" if other else ""


def _printable(text: str) -> str:
    """Return a label without line feeds and escape sequences: it comes from a model's folder."""
    return "".join(mark if mark.isprintable() else " " for mark in text)


def _value(row: TableRow, column: str) -> str:
    value = row.average if column == "average" else row.scores[column]
    return _NONE if value is None else f"{value:.1f}"


def _difference(row: TableRow, column: str) -> str:
    """Return a signed difference, "≠" for scores that are not alike, "-" for none."""
    if row.difference is None:
        return ""
    if column in row.unlike:
        return _UNLIKE
    value = row.difference[column]
    if value is None:
        return _NONE
    rounded = round(value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _notes(rows: Sequence[TableRow]) -> list[str]:
    """Return what a reader must know about the measured rows."""
    measured = [row.evaluation for row in rows if row.evaluation is not None]
    notes = []
    if any(row.suite != "paper" for row in rows):
        notes.append("The mean is over the benchmarks of the row's own suite.")
    judged = {(s.benchmark, s.judge) for each in measured for s in each.scores if s.judge}
    for benchmark in COLUMNS:
        judges = sorted({judge or "" for name, judge in judged if name == benchmark})
        if judges:
            notes.append(f"{benchmark}: judged by {' and '.join(judges)}.")
    for each in measured:
        missing = [f"{s.benchmark} {s.missing} of {s.questions}" for s in each.scores if s.missing]
        if missing:
            model = f"{each.student} {each.method} {each.teacher}"
            notes.append(f"{model}: missing verdicts: {', '.join(missing)}.")
        notes += _partly_known(each)
    if any(row.unlike for row in rows):
        notes.append(f"{_UNLIKE}: not compared, since kit, data, metric or judge differ.")
    return notes


def _partly_known(each: Evaluation) -> list[str]:
    """Return what weakens a model's scores besides missing verdicts."""
    model = f"{each.student} {each.method} {each.teacher}"
    cut = [f"{s.benchmark} {s.truncated} of {s.questions}" for s in each.scores if s.truncated]
    unknown = [s.benchmark for s in each.scores if s.data_state == "unverified"]
    sampled = [s.benchmark for s in each.scores if s.sampled is not None]
    notes = []
    if cut:
        notes.append(f"{model}: answers cut at the longest length: {', '.join(cut)}.")
    if unknown:
        notes.append(f"{model}: data unverified: {', '.join(unknown)}.")
    if sampled:
        notes.append(f"{model}: a sample of the questions only: {', '.join(sampled)}.")
    return notes
