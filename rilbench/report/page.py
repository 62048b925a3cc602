"""Assemble the page from templates, styles and scripts, and write it whole or not at all."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from rilbench import __version__
from rilbench.errors import UserError
from rilbench.ledger import Run
from rilbench.paths import may_write
from rilbench.report import page_json, pictures
from rilbench.report.charts import javascript
from rilbench.report.escaping import MINUS, clean, label, script_json
from rilbench.report.points import points, signed_points
from rilbench.report.report_data import ReportData
from rilbench.report.scores import MEAN, ScoreCell, ScoreRow

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST_NAME = 200
"""Bytes; file systems take 255, and the temporary file has a longer name."""

_TEMPLATES = files("rilbench.report") / "templates"
_SCRIPTS = (
    "items.js",
    "charts.js",
    "save.js",
    "table.js",
    "questions.js",
    "groups.js",
    "live.js",
    "main.js",
)
"""In the page's order."""


def check_place(out: Path) -> None:
    """Refuse a path that no page can be written to, before anything is gathered.

    Raises:
        UserError: the folder is missing or read-only, or the file is not an HTML file.
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


def write_report(report: ReportData, out: Path, picture_budget: int = pictures.BUDGET) -> int:
    """Write the page and return its size in bytes. An existing file is replaced whole.

    Args:
        report: what the page shows.
        out: the file.
        picture_budget: bytes for all pictures together.

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


def render(report: ReportData, picture_budget: int = pictures.BUDGET) -> str:
    """Return the page as text. The same report gives the same page."""
    packed = page_json.make_payload(report.sets, report.steps, picture_budget, page_json.BUDGET)
    library = javascript() if specs_of(report) else ""
    return _filled(
        report,
        None,
        library,
        payload=packed.text,
        pictures=packed.pictures.urls,
        notes=_notes(report, packed),
    )


@dataclass(frozen=True, kw_only=True)
class Live:
    """What a page that `rilbench view` serves has beyond a file, and where it asks for the rest.

    Attributes:
        questions: address of the questions; empty on the page of the whole ledger.
        curves: address of the curves of runs in progress; empty without any.
        choices: the filters of the page of the whole ledger: name, values, and what is chosen.
        text: what is searched for.
        runs: training runs, newest first.
        intervals: the scores have their intervals already.
    """

    questions: str = ""
    curves: str = ""
    choices: Sequence[tuple[str, Sequence[str], str]] = ()
    text: str = ""
    runs: Sequence[Run] = ()
    intervals: bool = True


def render_live(report: ReportData, live: Live) -> str:
    """Return a page whose questions, pictures and charts' library a server has."""
    return _filled(report, live, "", payload="", pictures=[], notes=[])


def live_policy() -> str:
    """Return the content security policy of `render_live`'s pages, for a header."""
    return _policy([_text("theme.js"), _page_script()], live=True) + "; frame-ancestors 'none'"


def specs_of(report: ReportData) -> list[Mapping[str, Any]]:
    """Return the charts' specifications, in the order of their places on the page."""
    charts = [*(chart for bars in report.bars for chart in bars.charts), *report.curves]
    return [chart.spec for chart in charts]


def _filled(report: ReportData, live: Live | None, library: str, **parts: Any) -> str:
    theme, script = _text("theme.js"), _page_script()
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            {**parts, "pictures": Markup(script_json(parts["pictures"]))},
            report=report,
            live=live,
            columns=report.columns,
            mean=MEAN,
            version=__version__,
            # Markup marks text that is not escaped again: ours, or escaped for its place.
            style=Markup(_text("style.css")),
            charts_script=Markup(library),
            theme_script=Markup(theme),
            script=Markup(script),
            policy=_policy([theme, script, library], live=live is not None),
            specs=Markup(script_json(specs_of(report))),
        )
    )
    return str(page)


@functools.cache
def _cleaned(value: Any) -> Any:
    """Return what a template shows of a value; only markup of our own stays as it is."""
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=FunctionLoader(_text),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "points": points,
        "signed": signed_points,
        "tone": _tone,
        "tooltip": _tooltip,
        "grouped": _grouped,
        "label": label,
    }
    return made


def _page_script() -> str:
    return "\n".join(_text(name) for name in _SCRIPTS)


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], *, live: bool) -> str:
    """Return the content security policy: only the page's own scripts by hash, and no network.

    A live page may also ask its own server.
    """
    hashes = [hashlib.sha256(script.encode("utf-8")).digest() for script in scripts if script]
    allowed = " ".join(f"'sha256-{base64.b64encode(h).decode('ascii')}'" for h in hashes)
    rules = {
        "default-src": "'none'",
        "script-src": allowed,
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if live:
        rules["script-src"] += " 'self'"
        rules |= {"img-src": "'self' data:", "connect-src": "'self'", "form-action": "'self'"}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _notes(report: ReportData, packed: page_json.Payload) -> list[str]:
    """Say what the page lacks, so that nobody looks for it."""
    notes = [f"{questions.title}: {questions.note}." for questions in report.sets if questions.note]
    if packed.pictures.full:
        notes.append(
            "Pictures are scaled down to fit the page, and some are left out, starting with "
            "questions on which all models have the same outcome."
        )
    cut = any(
        answer is not None and len(answer.response) > packed.longest
        for questions in report.sets
        for question in questions.questions
        for answer in question.answers
    )
    if cut:
        notes.append(
            f"Responses are cut at {packed.longest:,} characters; the ledger has them in full."
        )
    return notes


def _grouped(rows: Iterable[ScoreRow]) -> list[tuple[str, list[ScoreRow]]]:
    """Return rows by group, both in order of appearance, which jinja's groupby would lose."""
    groups: dict[str, list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.items())


def _tone(value: float | None) -> str:
    sign = signed_points(value or 0.0)[0]
    return "gain" if sign == "+" else "loss" if sign == MINUS else "same"


def _tooltip(cell: ScoreCell) -> str:
    interval = (
        "" if cell.low is None else f"95 % interval {points(cell.low)} to {points(cell.high)}"
    )
    return "; ".join(part for part in (interval, cell.note) if part)
