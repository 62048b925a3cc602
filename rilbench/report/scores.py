"""The table's rows and the bars' intervals, as the page shows them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rilbench.benchmark_names import COLUMNS
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
"""What the kits are called, where their packages have another name."""

_NEAR = 0.1
"""Points that the outcomes' mean may be from the kit's score; beyond, an interval would lie."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table, in points.

    Attributes:
        value: 0 to 100; None where there is none.
        low, high: the 95 % interval over questions; None where it is not known.
        difference: from the row's starting point; None where there is nothing to compare.
        decided: the paired test says that the difference is more than chance; of the paper's
            differences that is not known.
        paper: the paper's number for the same student, method and teacher.
        heat: 0 to 1, where the value stands between the least and the most of its column.
        note: what a reader must know of it.
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
        source: "paper" or "measured".
        group: what the row stands under: a student of the paper, or a suite.
        label: the row's own name.
        role: what it is to the run, or "" for the paper.
        evaluation: the ledger's number, None for the paper.
        cells: one for each of `COLUMNS`, and `MEAN`.
    """

    source: str
    group: str
    label: str
    role: str
    evaluation: int | None
    cells: Mapping[str, Cell]

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
        """Its cells' notes, the columns of one note together."""
        notes: dict[str, list[str]] = {}
        for column, cell in self.cells.items():
            if cell.note:
                notes.setdefault(cell.note, []).append(column)
        return [f"{note}: {', '.join(columns)}" for note, columns in notes.items()]


def score_rows(ledger: Ledger, subjects: Sequence[Subject]) -> list[ScoreRow]:
    """The measured rows of all subjects, each evaluation once."""
    seen: dict[int, tuple[str, Evaluation, Evaluation | None]] = {}
    for subject in subjects:
        starts = {(e.fingerprint, e.suite, e.kit): e for e in subject.before}
        for role, each in subject.evaluations:
            start = starts.get((each.start_fingerprint or "", each.suite, each.kit))
            seen.setdefault(each.id or 0, (role, each, start))
    settings = Settings(
        suite_columns=suite_columns,
        tallies=tallies(ledger, seen) if seen else {},
        paper=PaperCells([*main_rows(ledger), *other_rows(ledger)]),
        each_seed=True,
    )
    rows = []
    for role, each, start in seen.values():
        tests = paired_tests(ledger, start, each) if start is not None else {}
        row = _table_row(each, start, settings)
        rows.append(_measured(role, row, tests, settings.tallies, several=len(subjects) > 1))
    return _heated(_told_apart(rows))


def paired_tests(ledger: Ledger, first: Evaluation, second: Evaluation) -> dict[str, Paired]:
    """The paired comparison of two evaluations, by column; empty where nothing is common."""
    try:
        found = paired(pairs(ledger, first.id or 0, second.id or 0), first, second)
    except UserError:
        return {}
    return {each.benchmark: each for each in found}


def _told_apart(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Rows of one group with one label get their evaluations' numbers."""
    names = Counter((row.group, row.label) for row in rows)
    return [
        dataclasses.replace(row, label=f"{row.label} (evaluation {row.evaluation})")
        if names[row.group, row.label] > 1
        else row
        for row in rows
    ]


def score_rows_of_paper(ledger: Ledger) -> list[ScoreRow]:
    """The paper's main table, with the differences from the untrained student."""
    printed = main_rows(ledger)
    bases = {row.student: row for row in printed if row.method == UNTRAINED}
    rows = []
    for row in printed:
        base = bases.get(row.student) if row.method != UNTRAINED else None
        cells = {
            column: Cell(
                value=row.value(column),
                difference=minus(row.value(column), base.value(column)) if base else None,
            )
            for column in (*COLUMNS, MEAN)
        }
        name = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
        rows.append(
            ScoreRow(
                source="paper",
                group=row.student,
                label=name,
                role="",
                evaluation=None,
                cells=cells,
            )
        )
    return _heated(rows)


def _table_row(evaluation: Evaluation, start: Evaluation | None, settings: Settings) -> TableRow:
    """The table's own row of an evaluation: the one place that knows how the table is made."""
    beside = [evaluation] if start is None else [evaluation, start]
    rows = measured_rows(beside, settings)
    return next(row for row in rows if row.evaluation is evaluation)


def suite_columns(name: str) -> list[str]:
    """A suite's columns; of a suite that this version does not know, all."""
    return SUITES[name].columns if name in SUITES else list(COLUMNS)


def model_label(evaluation: Evaluation, *, several: bool = False) -> str:
    """How a model is called: its student, method and teachers; with its run where it matters."""
    parts = [evaluation.student]
    if evaluation.method != "base":
        parts += [evaluation.method, evaluation.teacher if evaluation.teacher != "none" else ""]
        parts += [f"({evaluation.run})" if several and evaluation.run else ""]
    return label(" ".join(part for part in parts if part))


def suite_label(evaluation: Evaluation) -> str:
    """What was asked and who scored it."""
    suite = "published benchmarks" if evaluation.suite == "paper" else f"{evaluation.suite} suite"
    kit = _KITS.get(evaluation.kit, evaluation.kit)
    return label(", ".join(part for part in (suite, kit) if part))


def _measured(
    role: str,
    row: TableRow,
    tests: Mapping[str, Paired],
    counts: Tallies,
    *,
    several: bool,
) -> ScoreRow:
    evaluation = row.evaluation
    assert evaluation is not None
    cells = {c: _cell(row, c, tests.get(c), counts) for c in (*COLUMNS, MEAN)}
    return ScoreRow(
        source="measured",
        group=suite_label(evaluation),
        label=model_label(evaluation, several=several),
        role=role,
        evaluation=evaluation.id or 0,
        cells=cells,
    )


def _cell(row: TableRow, column: str, test: Paired | None, counts: Tallies) -> Cell:
    own = row.cells[column]
    assert row.evaluation is not None
    wanted = suite_columns(row.suite) if column == MEAN else [column]
    honest = all(_is_mean(row, name, counts) for name in wanted)
    interval = own.questions if honest else None
    return Cell(
        value=own.value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        difference=row.difference.get(column) if row.difference is not None else None,
        decided=test is not None and test.verdict in ("better", "worse"),
        paper=own.paper,
        note=_note(row, column, row.evaluation),
    )


def _is_mean(row: TableRow, column: str, counts: Tallies) -> bool:
    """Whether the kit's score is the mean of the answers that the ledger has."""
    from rilbench.stats import tally_mean

    assert row.evaluation is not None
    tally, value = counts.get((row.evaluation.id or 0, column)), row.scores[column]
    if not tally or value is None:
        return False
    return abs(100 * tally_mean(tally) - value) < _NEAR


def _note(row: TableRow, column: str, evaluation: Evaluation) -> str:
    """What weakens a number."""
    score = next((each for each in evaluation.scores if each.benchmark == column), None)
    if score is None:
        return ""
    notes = [
        "not compared with its start: another kit, data, metric, judge or prompt"
        if column in row.unlike
        else "",
        f"{score.missing} of {score.questions} without a verdict" if score.missing else "",
        f"a sample of {score.questions} questions" if score.sampled is not None else "",
        f"{score.truncated} of {score.questions} answers cut off" if score.truncated else "",
        "data unverified" if score.data_state == "unverified" else "",
    ]
    return "; ".join(note for note in notes if note)


def _heated(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Say of each cell where it stands in its column, among the rows of its group."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for column, cell in row.cells.items():
            if cell.value is not None:
                groups.setdefault((row.group, column), []).append(cell.value)
    warm = []
    for row in rows:
        cells = {
            column: dataclasses.replace(
                cell, heat=_heat(cell.value, groups.get((row.group, column), ()))
            )
            for column, cell in row.cells.items()
        }
        warm.append(dataclasses.replace(row, cells=cells))
    return warm


def _heat(value: float | None, others: Iterable[float]) -> float | None:
    if value is None:
        return None
    least, most = min(others), max(others)
    return (value - least) / (most - least) if most > least else 0.5
