"""Write the table down: for a terminal, for a document, for a program."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError
from rilbench.stats import Interval
from rilbench.table.formatting import ALL, beneath, cross_check, printable, trace, values
from rilbench.table.types import AVERAGE, Table, TableRow

_NAMES = ("source", "student", "method", "teacher", "suite")


def render(table: Table, table_format: str, *, colour: bool = False) -> str:
    """Return the table as text, without a line feed at its end.

    Nothing is cut to the width of a terminal. Colour (escape sequences) is only for "rich", and
    for the caller to ask for when the output is a terminal.

    Raises:
        UserError: there is no such format.
    """
    if table_format == "rich":
        from rilbench.table.render_rich import terminal

        return terminal(table, colour)
    if table_format not in _PLAIN:
        known = ", ".join(FORMATS)
        raise UserError(f"there is no table format {table_format!r}; take one of {known}")
    return _PLAIN[table_format](table)


# ---- for a program


def _json(table: Table) -> str:
    rows = [_record(row) for row in table.rows]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)


def _record(row: TableRow) -> dict[str, Any]:
    record = {
        **{name: getattr(row, name) for name in _NAMES},
        "suite": row.suite + cross_check(row),
        "scores": {column: row.scores[column] for column in COLUMNS},
        "average": row.average,
    }
    if row.source == "measured":
        numbers = dict.fromkeys(each.id for each in row.evaluations if each.id is not None)
        record |= {
            "seeds": row.seeds,
            "evaluations": list(numbers),
            "from_start": row.difference,
            "unlike": list(row.unlike),
            "cells": {column: _cell(row, column) for column in ALL},
        }
    return record


def _cell(row: TableRow, column: str) -> dict[str, Any]:
    cell = row.cells[column]
    return {
        "evaluations": [origin.evaluation.id for origin in cell.origins],
        "questions_95": _ends(cell.questions),
        "runs_95": _ends(cell.runs),
        "paper": cell.paper,
        "reproduced": cell.reproduced,
        "differs_in": list(cell.odd),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    mean = AVERAGE if not table.over else table.mean
    writer.writerow([*_NAMES, "origin", *COLUMNS, mean])
    for row in table.rows:
        origin = row.origin or " ".join(
            str(each.id) for each in row.evaluations if each.id is not None
        )
        names = [_plain(getattr(row, name)) for name in _NAMES]
        names[-1] += cross_check(row)
        numbers = ["" if v is None else f"{v:.10g}" for v in map(row.value, ALL)]
        writer.writerow([*names, origin, *numbers])
    return text.getvalue().removesuffix("\n")


def _plain(text: str) -> str:
    """A label that no spreadsheet takes for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in "=+-@" else text


# ---- for a document


def _body(table: Table) -> Iterator[list[str]]:
    """Rows as text, and beneath each measured one what stands behind it."""
    for row in table.rows:
        names = [printable(getattr(row, name)) for name in _NAMES]
        names[-1] += cross_check(row)
        names[2] += trace(row)
        if row.origin:
            names[0] = row.origin
        yield [*names, *values(row)]
        for name, cells in beneath(row):
            yield ["", "", name, "", "", *cells]


def _markdown(table: Table) -> str:
    lines = [[*_NAMES, *COLUMNS, table.mean], ["---"] * len(_NAMES) + ["---:"] * len(ALL)]
    lines += [[_markdown_cell(cell) for cell in cells] for cells in _body(table)]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "\n".join(f"- {_markdown_cell(note)}" for note in table.notes)
    return f"{text}\n\n{notes}" if notes else text


def _markdown_cell(text: str) -> str:
    """Return ``text`` so that it stays in its cell."""
    text = printable(text)
    for mark, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, code)
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", text)


def _latex(table: Table) -> str:
    """A booktabs table; the document needs ``\\usepackage{booktabs,textcomp}``."""
    head = ["Student", "Method", "Teacher", *COLUMNS, table.mean]
    lines = [rf"\begin{{tabular}}{{lll{'r' * len(ALL)}}}", r"\toprule"]
    lines += [" & ".join(map(_latex_cell, head)) + r" \\", r"\midrule"]
    before = None
    for cells in _body(table):
        names, numbers = cells[: len(_NAMES)], cells[len(_NAMES) :]
        if names[1] and before not in (None, names[1]):
            lines.append(r"\addlinespace")
        before = names[1] or before
        lines.append(" & ".join(map(_latex_cell, [*names[1:4], *numbers])) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {printable(note)}" for note in table.notes)])


_LATEX = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "≠": r"$\neq$", "†": r"$^\dagger$"},
    **{"✓": r"$\checkmark$", "<": r"\textless{}", ">": r"\textgreater{}", "…": r"\ldots{}"},
}


def _latex_cell(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in printable(text))


def _html(table: Table) -> str:
    """A table element with a list of notes, for a page of the reader's."""

    def line(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    head = line([*_NAMES, *COLUMNS, table.mean], "th")
    body = "\n".join(line(cells, "td") for cells in _body(table))
    notes = "\n".join(f"<li>{html.escape(printable(note))}</li>" for note in table.notes)
    text = f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"{text}\n<ul>\n{notes}\n</ul>" if notes else text


_PLAIN: dict[str, Callable[[Table], str]] = {
    "markdown": _markdown,
    "latex": _latex,
    "csv": _csv,
    "html": _html,
    "json": _json,
}

FORMATS = ("rich", *_PLAIN)
"""The names that :func:`render` takes."""
