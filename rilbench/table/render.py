"""Write the table for a terminal, a document or a program."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from rilbench.errors import UserError
from rilbench.stats import Interval
from rilbench.table.formatting import cross_check, evaluation_ids, lines, plain, printable, trace
from rilbench.table.latex import latex
from rilbench.table.types import AVERAGE, Table, TableRow

_NAMES = ("source", "student", "method", "teacher", "suite")


def render(
    table: Table, table_format: str, *, colour: bool = False, width: int | None = None
) -> str:
    """Return the table as text, without a line feed at its end.

    Nothing is cut: in a terminal that is too narrow, the benchmarks are rows.

    Args:
        table: to be written.
        table_format: one of `FORMATS`.
        colour: whether "rich" has escape sequences; for output to a terminal.
        width: characters of a terminal's line, for "rich"; None where any width will do.

    Raises:
        UserError: there is no such format.
    """
    if table_format == "rich":
        from rilbench.table.render_rich import terminal

        return terminal(table, colour, width)
    if table_format not in _PLAIN:
        known = ", ".join(FORMATS)
        raise UserError(f"there is no table format {table_format!r}; take one of {known}")
    return _PLAIN[table_format](table)


# ---- for a program


def _json(table: Table) -> str:
    rows = [_record(row, table) for row in table.rows]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)


def _record(row: TableRow, table: Table) -> dict[str, Any]:
    record = {
        **{name: getattr(row, name) for name in _NAMES},
        "suite": row.suite + cross_check(row),
        "scores": {name: row.value(name) for name in table.columns},
        "average": row.average,
    }
    if row.source == "measured":
        columns = (*table.columns, AVERAGE)
        changes = row.difference
        record |= {
            "average_over": list(row.over),
            "seeds": row.seeds,
            "evaluations": evaluation_ids(row),
            "from_start": None if changes is None else {c: changes.get(c) for c in columns},
            "unlike": list(row.unlike),
            "cells": {column: _cell(row, column) for column in columns},
        }
    return record


def _cell(row: TableRow, column: str) -> dict[str, Any]:
    def ends(interval: Interval | None) -> list[float] | None:
        return None if interval is None else [interval.low, interval.high]

    cell = row.cell(column)
    return {
        "evaluations": [origin.evaluation.id for origin in cell.origins],
        "questions_95": ends(cell.questions),
        "runs_95": ends(cell.runs),
        "paper": cell.paper,
        "reproduced": cell.reproduced,
        "differs_in": list(cell.odd),
        "incomplete": cell.incomplete,
        "reading": [o.evaluation.reading(column).as_settings() for o in cell.origins],
    }


def _csv(table: Table) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    mean = AVERAGE if table.mean == "mean" else table.mean
    more = ("seeds", "differs_in", "not_compared")
    writer.writerow([*_NAMES, "origin", "evaluations", *table.columns, mean, *more])
    for row in table.rows:
        names = [plain(getattr(row, name)) for name in _NAMES]
        names[-1] += cross_check(row)
        ids = " ".join(map(str, evaluation_ids(row)))
        values = [row.value(column) for column in (*table.columns, AVERAGE)]
        numbers = ["" if v is None else f"{v:.10g}" for v in values]
        odd = [f"{c}: {' and '.join(row.cell(c).odd)}" for c in table.columns if row.cell(c).odd]
        marks = [str(row.seeds) if ids else "", "; ".join(odd), "; ".join(row.unlike)]
        writer.writerow([*names, row.origin, ids, *numbers, *marks])
    return text.getvalue().removesuffix("\n")


# ---- for a document


def _body(table: Table) -> Iterator[list[str]]:
    """Yield the rows as text; below each measured one its differences and intervals."""
    for row in table.rows:
        names = [printable(getattr(row, name)) for name in _NAMES]
        names[-1] += cross_check(row)
        names[2] += trace(row) if table.details else ""
        if row.origin:
            names[0] = row.origin
        for line, cells in lines(row, table.columns):
            if line and not table.details:
                continue
            yield [*(["", "", line, "", ""] if line else names), *cells]


def _markdown(table: Table) -> str:
    head = [*_NAMES, *table.columns, table.mean]
    rule = ["---"] * len(_NAMES) + ["---:"] * (len(table.columns) + 1)
    rows = [head, rule, *([_markdown_cell(cell) for cell in cells] for cells in _body(table))]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    notes = "\n".join(f"- {_markdown_cell(note)}" for note in table.notes)
    return f"{text}\n\n{notes}" if notes else text


def _markdown_cell(text: str) -> str:
    """Return ``text`` so that it stays in its cell."""
    text = printable(text)
    for mark, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(mark, code)
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", text)


def _html(table: Table) -> str:
    """Return a table element and a list of notes, to be put into a page."""

    def line(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    head = line([*_NAMES, *table.columns, table.mean], "th")
    body = "\n".join(line(cells, "td") for cells in _body(table))
    notes = "\n".join(f"<li>{html.escape(printable(note))}</li>" for note in table.notes)
    text = f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"{text}\n<ul>\n{notes}\n</ul>" if notes else text


_PLAIN: dict[str, Callable[[Table], str]] = {
    "markdown": _markdown,
    "latex": latex,
    "csv": _csv,
    "html": _html,
    "json": _json,
}

FORMATS = ("rich", *_PLAIN)
"""The names that :func:`render` takes."""
