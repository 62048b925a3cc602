"""The page of the whole ledger: every model's scores, with filters, and the training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.ledger.queries import tallies
from rilbench.report.charts import curve_charts, curve_legend
from rilbench.report.escaping import label
from rilbench.report.page import Live, render_live
from rilbench.report.report_data import ReportData
from rilbench.report.scores import (
    COLOURS,
    MEAN,
    ScoreRow,
    measured_row,
    model_label,
    score_columns,
    score_rows_of_paper,
    suite_columns,
    with_heat,
)
from rilbench.report.selection import up_to_date
from rilbench.table.measured_rows import Settings, measured_rows
from rilbench.table.paper_rows import PaperCells, main_rows, other_rows
from rilbench.table.types import UNTRAINED, TableRow

FILTERS = ("suite", "student", "method", "teacher", "benchmark")


@dataclass(frozen=True)
class Overview:
    """What the page is made of, read once for each state of the ledger.

    Attributes:
        rows: each model's or recipe's row, as the table has it and as the page shows it.
        paper: the paper's rows.
        intervals: the rows have their intervals, which take longest to compute.
    """

    rows: Sequence[tuple[TableRow, ScoreRow]]
    paper: Sequence[ScoreRow]
    intervals: bool


def read_overview(ledger: Ledger, *, intervals: bool) -> Overview:
    """Read the scores.

    Raises:
        UserError: see `Ledger`.
    """
    evaluations = ledger.evaluations()
    settings = Settings(
        suite_columns=suite_columns,
        tallies=tallies(ledger, [e.id or 0 for e in evaluations]) if intervals else {},
        paper=PaperCells([*main_rows(ledger), *other_rows(ledger)]),
    )
    rows = []
    for table in measured_rows(evaluations, settings):
        assert table.evaluation is not None
        name = model_label(table.evaluation, several=table.seeds == 1)
        row = measured_row(
            table, {}, settings.tallies, f"{name}, {table.seeds} seeds" if table.seeds > 1 else name
        )
        colour = "var(--before)" if table.method == UNTRAINED else COLOURS[0]
        rows.append((table, replace(row, colour=colour)))
    published = not rows or any(table.suite == "paper" for table, _ in rows)
    paper = score_rows_of_paper(ledger, levels=published)
    return Overview(rows, paper, intervals)


def render_overview(
    found: Overview, every_run: Sequence[Run], asked: Mapping[str, str], name: str
) -> str:
    """Return the page.

    Args:
        found: what the ledger has.
        every_run: training runs, oldest first, as they are now.
        asked: the chosen value of each of `FILTERS`, and a ``text`` to look for.
        name: of the ledger.
    """
    text = asked.get("text", "").strip()
    kept = [(table, row) for table, row in found.rows if _is_asked(table, asked, text)]
    rows = with_heat([row for _, row in kept])
    columns = score_columns(rows)
    if asked.get("benchmark"):
        columns = [asked["benchmark"], MEAN]
    runs = [run for run in every_run[::-1] if _is_run_asked(run, asked, text)]
    running = [up_to_date(run) for run in runs if run.status == "running"]
    count = sum(len(row.evaluations) for row in rows)
    report = ReportData(
        title=label(name),
        subtitle=f"{count:,} evaluations in {len(rows):,} rows, {len(runs):,} training runs",
        facts=[],
        columns=columns,
        rows=rows,
        paper=found.paper,
        near="",
        published=all(table.suite == "paper" for table, _ in kept),
        bars=[],
        curves=curve_charts(running),
        legend=curve_legend(running) if running else [],
        recipes=[],
        sources=[],
    )
    live = Live(
        choices=[(name, _values(found, name), asked.get(name, "")) for name in FILTERS],
        text=text,
        runs=[*running, *(run for run in runs if run.status != "running")],
        curves=curves_address("run", [run.path for run in running]) if running else "",
        intervals=found.intervals,
    )
    return render_live(report, live)


def curves_address(kind: str, names: Sequence[str]) -> str:
    """Return where the curves of a page are asked for: by paths of a "run", or as a report's."""
    return f"/curves?{urlencode([(kind, name) for name in names])}"


def _values(found: Overview, name: str) -> list[str]:
    """Return what a filter may be."""
    if name == "benchmark":
        measured = {n for table, _ in found.rows for n, v in table.scores.items() if v is not None}
        columns = score_columns([row for _, row in found.rows])
        return [column for column in columns if column in measured]
    return sorted({getattr(table, name) for table, _ in found.rows})


def _is_asked(table: TableRow, asked: Mapping[str, str], text: str) -> bool:
    for name in FILTERS:
        if not (wanted := asked.get(name)):
            continue
        if name == "benchmark":
            if table.scores.get(wanted) is None:
                return False
        elif getattr(table, name) != wanted:
            return False
    words = " ".join(_words(e) for e in table.evaluations)
    return text.casefold() in words.casefold()


def _words(evaluation: Evaluation) -> str:
    judges = {score.judge for score in evaluation.scores if score.judge}
    e = evaluation
    parts = (e.student, e.method, e.teacher, e.suite, e.kit, e.run, e.path, e.fingerprint, *judges)
    return " ".join(part for part in parts if part)


def _is_run_asked(run: Run, asked: Mapping[str, str], text: str) -> bool:
    labels = {"student": run.student, "method": run.method, "teacher": run.teacher}
    if any(asked.get(name) not in (None, "", value) for name, value in labels.items()):
        return False
    words = " ".join((run.name, run.path, run.status, *labels.values()))
    return text.casefold() in words.casefold()
