"""The rows of the score table and the intervals of the bars, as the page shows them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import pairs, tallies
from rilbench.report.escaping import label
from rilbench.report.selection import Subject
from rilbench.table.intervals import Tallies
from rilbench.table.measured_rows import Settings, measured_rows
from rilbench.table.paired_test import Paired, paired
from rilbench.table.paper_rows import PaperCells, main_rows, other_rows
from rilbench.table.types import AVERAGE, UNTRAINED, TableRow, minus

MEAN = AVERAGE
"""The last column of a row."""


_KITS = {"ms-vlmeval": "VLMEvalKit"}
"""Names of evaluation toolkits whose packages are called otherwise."""

_NEAR = 0.1
"""Largest distance of the outcomes' mean from the kit's score, in points, for an interval."""


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One number of the table, in points.

    Attributes:
        value: 0 to 100; None if it was not measured.
        low, high: the 95 % interval over questions; None if it is unknown.
        difference: change from the row's starting point; None without one to compare with.
        decided: the paired test says that the difference is more than chance; unknown for the
            paper's differences.
        paper: the paper's number for the same student, method and teacher.
        heat: 0 to 1, the value's place between the least and the most of its column.
        note: a caveat for the reader.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    decided: bool = False
    paper: float | None = None
    heat: float | None = None
    note: str = ""

    @property
    def from_paper(self) -> float | None:
        """The difference from the paper's number."""
        return minus(self.value, self.paper)


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One row of the table and one bar of each chart.

    Attributes:
        group: its heading: a student of the paper, or a suite.
        label: its name within the group.
        role: one of `ROLES`, or "" for the paper.
        evaluation: the ledger's number; None for the paper.
        cells: by benchmark, and `MEAN`; a benchmark that the row lacks is missing.
    """

    group: str
    label: str
    role: str
    evaluation: int | None
    cells: dict[str, ScoreCell]

    def cell(self, column: str) -> ScoreCell:
        """Return a column's cell; an empty one if the row lacks it."""
        return self.cells.get(column, ScoreCell(value=None))

    @property
    def compared(self) -> bool:
        """It has differences."""
        return any(cell.difference is not None for cell in self.cells.values())

    @property
    def has_paper(self) -> bool:
        """The paper has the same student, method and teacher."""
        return any(cell.paper is not None for cell in self.cells.values())

    @property
    def remarks(self) -> list[str]:
        """Each note of its cells, with the columns that have it."""
        notes: dict[str, list[str]] = {}
        for column, cell in self.cells.items():
            if cell.note:
                notes.setdefault(cell.note, []).append(column)
        return [f"{note}: {', '.join(columns)}" for note, columns in notes.items()]


def benchmark_rank(benchmark: str) -> tuple[int, str]:
    """Return the sort key of a benchmark: the paper's 14 in its order, then others by name."""
    return PAPER_14.index(benchmark) if benchmark in PAPER_14 else len(PAPER_14), benchmark


def score_columns(rows: Iterable[ScoreRow]) -> list[str]:
    """Return the table's columns: the paper's 14, other measured benchmarks, the mean."""
    measured = {column for row in rows for column in row.cells} - {MEAN}
    return [*sorted(measured | set(PAPER_14), key=benchmark_rank), MEAN]


def score_rows(ledger: Ledger, subjects: Sequence[Subject]) -> list[ScoreRow]:
    """Return the measured rows of all subjects, each evaluation once."""
    seen: dict[int, tuple[str, Evaluation, Evaluation | None]] = {}
    for subject in subjects:
        starts = {(e.fingerprint, e.suite, e.kit): e for e in subject.before}
        for role, evaluation in subject.evaluations:
            key = (evaluation.start_fingerprint or "", evaluation.suite, evaluation.kit)
            seen.setdefault(evaluation.id or 0, (role, evaluation, starts.get(key)))
    settings = Settings(
        suite_columns=suite_columns,
        tallies=tallies(ledger, seen) if seen else {},
        paper=PaperCells([*main_rows(ledger), *other_rows(ledger)]),
        each_seed=True,
    )
    rows = []
    for role, evaluation, start in seen.values():
        tests = paired_tests(ledger, start, evaluation) if start is not None else {}
        pair = [evaluation] if start is None else [evaluation, start]
        table = next(r for r in measured_rows(pair, settings) if r.evaluation is evaluation)
        columns = {*PAPER_14, *(score.benchmark for score in evaluation.scores), MEAN}
        rows.append(
            ScoreRow(
                group=suite_label(evaluation),
                label=model_label(evaluation, several=len(subjects) > 1),
                role=role,
                evaluation=evaluation.id or 0,
                cells={
                    column: _measured_cell(
                        evaluation, table, column, tests.get(column), settings.tallies
                    )
                    for column in sorted(columns, key=benchmark_rank)
                },
            )
        )
    # Rows of one group with the same label get the numbers of their evaluations.
    names = Counter((row.group, row.label) for row in rows)
    return _with_heat(
        [
            dataclasses.replace(row, label=f"{row.label} (evaluation {row.evaluation})")
            if names[row.group, row.label] > 1
            else row
            for row in rows
        ]
    )


def paired_tests(ledger: Ledger, first: Evaluation, second: Evaluation) -> dict[str, Paired]:
    """Compare two evaluations question by question; empty if they share no question.

    Returns:
        The tests by benchmark, and of `MEAN`.
    """
    try:
        tests = paired(pairs(ledger, first.id or 0, second.id or 0), first, second)
    except UserError:
        return {}
    return {test.benchmark: test for test in tests}


def score_rows_of_paper(ledger: Ledger) -> list[ScoreRow]:
    """Return the paper's main table, with the differences from the untrained student."""
    printed = main_rows(ledger)
    bases = {row.student: row for row in printed if row.method == UNTRAINED}
    rows = []
    for row in printed:
        base = bases.get(row.student) if row.method != UNTRAINED else None
        cells = {
            column: ScoreCell(
                value=row.value(column),
                difference=minus(row.value(column), base.value(column)) if base else None,
            )
            for column in (*PAPER_14, MEAN)
        }
        name = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
        rows.append(ScoreRow(group=row.student, label=name, role="", evaluation=None, cells=cells))
    return _with_heat(rows)


def suite_columns(name: str) -> list[str]:
    """Return a suite's benchmarks; the paper's 14 for a suite that this version does not know."""
    return SUITES[name].columns if name in SUITES else list(PAPER_14)


def model_label(evaluation: Evaluation, *, several: bool = False) -> str:
    """Return a model's student, method and teachers; with several models also its run."""
    parts = [evaluation.student]
    if evaluation.method != UNTRAINED:
        parts += [evaluation.method, evaluation.teacher if evaluation.teacher != "none" else ""]
        parts += [f"({evaluation.run})" if several and evaluation.run else ""]
    return label(" ".join(part for part in parts if part))


def suite_label(evaluation: Evaluation) -> str:
    """Return the names of an evaluation's suite and toolkit."""
    suite = "published benchmarks" if evaluation.suite == "paper" else f"{evaluation.suite} suite"
    kit = _KITS.get(evaluation.kit, evaluation.kit)
    return label(", ".join(part for part in (suite, kit) if part))


def _measured_cell(
    evaluation: Evaluation, row: TableRow, column: str, test: Paired | None, counts: Tallies
) -> ScoreCell:
    score = next((score for score in evaluation.scores if score.benchmark == column), None)
    notes = []
    if score is not None:
        if column in row.unlike:
            notes.append("not compared with its start: another kit, data, metric, judge or prompt")
        if score.missing:
            notes.append(f"{score.missing} of {score.questions} without a verdict")
        if score.is_incomplete:
            notes.append("incomplete: it counts in no mean and no difference")
        if unread := evaluation.reading(column).unread:
            notes.append(f"{unread} choices that the kit's rules could not read count as wrong")
        if score.sampled is not None:
            notes.append(f"a sample of {score.questions} questions")
        if score.truncated:
            notes.append(f"{score.truncated} of {score.questions} responses cut off")
        if score.data_state == "unverified":
            notes.append("data unverified")
    cell = row.cells.get(column)
    # An interval over the ledger's responses is only shown where they give the kit's score.
    needed = suite_columns(row.suite) if column == MEAN else [column]
    agree = all(_agrees(row, name, counts) for name in needed)
    interval = cell.questions if cell is not None and agree else None
    return ScoreCell(
        value=cell.value if cell is not None else score.value if score is not None else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        difference=row.difference.get(column) if row.difference is not None else None,
        decided=test is not None and test.verdict in ("better", "worse"),
        paper=cell.paper if cell is not None else None,
        note="; ".join(notes),
    )


def _agrees(row: TableRow, column: str, counts: Tallies) -> bool:
    """Whether the kit's score is the mean of the outcomes in the ledger."""
    from rilbench.stats import tally_mean

    assert row.evaluation is not None
    tally, value = counts.get((row.evaluation.id or 0, column)), row.scores.get(column)
    if not tally or value is None:
        return False
    return abs(100 * tally_mean(tally) - value) < _NEAR


def _with_heat(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Set each cell's heat: where its value is between the least and the most of its group."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for column, cell in row.cells.items():
            if cell.value is not None:
                groups.setdefault((row.group, column), []).append(cell.value)
    for row in rows:
        for column, cell in row.cells.items():
            if cell.value is not None:
                values = groups[row.group, column]
                least, most = min(values), max(values)
                heat = (cell.value - least) / (most - least) if most > least else 0.5
                row.cells[column] = dataclasses.replace(cell, heat=heat)
    return list(rows)
