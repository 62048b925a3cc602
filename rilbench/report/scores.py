"""The table's rows and the bars' intervals, as the page shows them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rilbench.columns import COLUMNS
from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import Tally, tallies
from rilbench.report.subjects import Subject
from rilbench.report.text import label
from rilbench.table.compare import measured_rows
from rilbench.table.paper import paper_rows
from rilbench.table.rows import TableRow

MEAN = "average"
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
        heat: 0 to 1, where the value stands between the least and the most of its column.
        note: what a reader must know of it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    heat: float | None = None
    note: str = ""


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
    counts = tallies(ledger, seen) if seen else {}
    rows = [
        _measured(role, _table_row(each, start), counts, several=len(subjects) > 1)
        for role, each, start in seen.values()
    ]
    return _heated(_told_apart(rows))


def _told_apart(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Rows of one group with one label get their evaluations' numbers."""
    names = Counter((row.group, row.label) for row in rows)
    return [
        dataclasses.replace(row, label=f"{row.label} (evaluation {row.evaluation})")
        if names[row.group, row.label] > 1
        else row
        for row in rows
    ]


def score_rows_of_paper() -> list[ScoreRow]:
    """The paper's rows, with their differences from the untrained student."""
    rows = []
    bases = {row.student: row for row in paper_rows() if row.method == "base"}
    for row in paper_rows():
        base = bases.get(row.student) if row.method != "base" else None
        cells = {}
        for column in (*COLUMNS, MEAN):
            value = _value(row, column)
            before = None if base is None else _value(base, column)
            both = value is not None and before is not None
            cells[column] = Cell(value=value, difference=value - before if both else None)  # type: ignore[operator]
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


def _table_row(evaluation: Evaluation, start: Evaluation | None) -> TableRow:
    """The table's own row of an evaluation: the one place that knows how the table is made."""
    beside = [evaluation] if start is None else [evaluation, start]
    rows = measured_rows(beside, suite_columns)
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
    role: str, row: TableRow, counts: Mapping[tuple[int, str], Tally], *, several: bool
) -> ScoreRow:
    evaluation = row.evaluation
    assert evaluation is not None
    number = evaluation.id or 0
    own = {column: counts[number, column] for column in COLUMNS if (number, column) in counts}
    cells = {column: _cell(row, column, own, evaluation) for column in (*COLUMNS, MEAN)}
    return ScoreRow(
        source="measured",
        group=suite_label(evaluation),
        label=model_label(evaluation, several=several),
        role=role,
        evaluation=number,
        cells=cells,
    )


def _cell(row: TableRow, column: str, own: Mapping[str, Tally], evaluation: Evaluation) -> Cell:
    value = _value(row, column)
    difference = row.difference.get(column) if row.difference is not None else None
    wanted = suite_columns(row.suite) if column == MEAN else [column]
    there = [own[name] for name in wanted if name in own]
    low, high = _interval(there, value) if len(there) == len(wanted) else (None, None)
    return Cell(
        value=value,
        low=low,
        high=high,
        difference=difference,
        note=_note(row, column, evaluation),
    )


def _value(row: TableRow, column: str) -> float | None:
    return row.average if column == MEAN else row.scores[column]


def _interval(counts: Sequence[Tally], value: float | None) -> tuple[float | None, float | None]:
    """The ends of the interval in points, where the outcomes' mean is the score."""
    from rilbench.report.interim import bootstrap_average

    if value is None:
        return None, None
    found = bootstrap_average(counts)
    if abs(100 * found.mean - value) > _NEAR:
        return None, None
    return 100 * found.low, 100 * found.high


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
