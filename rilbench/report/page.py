"""The page: templates, styles and scripts put together, and written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rilbench import __version__
from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError
from rilbench.paths import may_write
from rilbench.report import page_json as payloads
from rilbench.report import pictures
from rilbench.report.charts import Chart, javascript
from rilbench.report.escaping import MINUS, NOTHING, script_json
from rilbench.report.page_json import Payload, make_payload
from rilbench.report.report_data import Report
from rilbench.report.scores import MEAN, Cell, ScoreRow

_LONGEST_NAME = 200
"""Bytes; file systems take 255, and the part that is written first has a longer name."""

_TEMPLATES = files("rilbench.report") / "templates"
_SCRIPTS = ("items.js", "charts.js", "table.js", "questions.js", "groups.js", "main.js")
"""In the order in which they stand on the page."""


def check_place(out: Path) -> None:
    """Refuse a place that no page can be written to, before anything is gathered.

    Raises:
        UserError: the folder is missing or read-only, or the file is something else's.
    """
    if "\0" in str(out) or len(os.fsencode(out.name)) > _LONGEST_NAME:
        raise UserError(f"{str(out)[:80]!r} is not a file name; give another -o")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out} does not end in .html; give another -o")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is not a folder; make it or give another -o")
    if out.is_dir():
        raise UserError(f"{out} is a folder; give a file with -o")
    if not may_write(out.parent) or (out.exists() and not may_write(out)):
        raise UserError(f"{out} cannot be written; make it writable or give another -o")


def write_report(report: Report, out: Path, picture_budget: int = pictures.BUDGET) -> int:
    """Write the page and return its size in bytes. What stood there is replaced whole.

    Args:
        report: what it shows.
        out: the file.
        picture_budget: bytes that all pictures may take.

    Raises:
        UserError: see `check_place`.
    """
    check_place(out)
    text = render(report, picture_budget).encode("utf-8")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.write_bytes(text)
        part.replace(out)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return len(text)


def render(report: Report, picture_budget: int = pictures.BUDGET) -> str:
    """Return the page as text. The same report is the same page."""
    from jinja2 import Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup

    packed = make_payload(report.sets, report.steps, picture_budget, payloads.BUDGET)
    environment = Environment(
        loader=_loader(),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": _points,
        "signed": _signed,
        "tone": _tone,
        "told": _told,
        "grouped": _grouped,
    }
    theme, own = _text("theme.js"), "\n".join(_text(name) for name in _SCRIPTS)
    charts = javascript() if _charts(report) else ""
    shown = environment.get_template("page.html.j2").render(
        report=report,
        columns=[*COLUMNS, MEAN],
        mean=MEAN,
        version=__version__,
        # Markup says that a text is safe as it stands: ours, or escaped for its place.
        style=Markup(_text("style.css")),
        charts_script=Markup(charts),
        theme_script=Markup(theme),
        script=Markup(own),
        policy=_policy([theme, own, charts]),
        specs=Markup(script_json([chart.spec for chart in _charts(report)])),
        pictures=Markup(script_json(packed.pictures.urls)),
        payload=packed.text,
        notes=_notes(report, packed),
    )
    return str(shown)


def _charts(report: Report) -> list[Chart]:
    """All charts, in the order in which the page has their places."""
    return [*(chart for bars in report.bars for chart in bars.charts), *report.curves]


def _loader() -> Any:
    from jinja2 import FunctionLoader

    return FunctionLoader(_text)


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """What a browser may do with the page: run its own scripts, by their hashes, and no network."""
    hashes = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts if script]
    own = " ".join(f"'sha256-{base64.b64encode(found).decode('ascii')}'" for found in hashes)
    rules = {
        "default-src": "'none'",
        "script-src": own,
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _notes(report: Report, packed: Payload) -> list[str]:
    """What the page lacks, so that nobody looks for it."""
    notes = [f"{own.title}: {own.note}." for own in report.sets if own.note]
    if packed.pictures.full:
        notes.append(
            "Pictures are scaled down to fit the page, and some are left out: first of all those "
            "of questions that every model answers alike."
        )
    cut = any(
        answer is not None and len(answer.response) > packed.longest
        for own in report.sets
        for question in own.questions
        for answer in question.answers
    )
    if cut:
        notes.append(
            f"Answers are cut at {packed.longest:,} characters; the ledger has them in full."
        )
    return notes


def _grouped(rows: Iterable[ScoreRow]) -> list[tuple[str, list[ScoreRow]]]:
    """Rows by their group, in their own order (which jinja's groupby would lose)."""
    found: dict[str, list[ScoreRow]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return list(found.items())


def _points(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _signed(value: float | None) -> str:
    if value is None:
        return NOTHING
    rounded = round(value, 1)
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def _tone(value: float | None) -> str:
    rounded = round(value or 0.0, 1)
    return "gain" if rounded > 0 else "loss" if rounded < 0 else "same"


def _told(cell: Cell) -> str:
    """What a cell says when it is pointed at."""
    interval = "" if cell.low is None else f"95 % interval {cell.low:.1f} to {cell.high:.1f}"
    return "; ".join(part for part in (interval, cell.note) if part)
