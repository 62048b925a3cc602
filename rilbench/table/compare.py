"""Measured rows: the newest evaluation of each model, beside its own starting point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rilbench.columns import COLUMNS
from rilbench.ledger.records import Evaluation, Score, latest
from rilbench.table.paper import paper_rows
from rilbench.table.rows import UNTRAINED, TableRow, average

SuiteColumns = Callable[[str], Sequence[str]]
"""Gives the columns that a suite has, by its name."""


def table_rows(evaluations: Iterable[Evaluation], suite_columns: SuiteColumns) -> list[TableRow]:
    """Return the paper's rows, then the measured ones."""
    return [*paper_rows(), *measured_rows(evaluations, suite_columns)]


def measured_rows(evaluations: Iterable[Evaluation], suite_columns: SuiteColumns) -> list[TableRow]:
    """Return one row per model, suite and kit from its newest evaluation.

    They go by student and suite, the untrained model first, then by method, teacher and time.
    """
    newest = latest(evaluations)  # Newest first.
    starts = {(each.fingerprint, each.suite, each.kit): each for each in reversed(newest)}

    def order(each: Evaluation) -> tuple[object, ...]:
        labels = (each.student, each.suite, each.method != UNTRAINED, each.method, each.teacher)
        return (*labels, each.moment, each.id or 0)

    rows = []
    for each in sorted(newest, key=order):
        start = starts.get((each.start_fingerprint or "", each.suite, each.kit))
        rows.append(_row(each, start, suite_columns(each.suite)))
    return rows


def _row(evaluation: Evaluation, start: Evaluation | None, columns: Sequence[str]) -> TableRow:
    now = _by_column(evaluation)
    scores = _values(now)
    mean = average(scores, columns)
    difference: dict[str, float | None] | None = None
    unlike: tuple[str, ...] = ()
    if start is not None:
        before = _by_column(start)
        both = [column for column in COLUMNS if column in now and column in before]
        unlike = tuple(column for column in both if now[column].story != before[column].story)
        old = {name: None if name in unlike else value for name, value in _values(before).items()}
        difference = {column: _minus(scores[column], old[column]) for column in COLUMNS}
        difference["average"] = _minus(mean, average(old, columns))
    return TableRow(
        source="measured",
        student=evaluation.student,
        method=evaluation.method,
        teacher=evaluation.teacher,
        suite=evaluation.suite,
        scores=scores,
        average=mean,
        difference=difference,
        unlike=unlike,
        evaluation=evaluation,
    )


def _by_column(evaluation: Evaluation) -> dict[str, Score]:
    return {score.benchmark: score for score in evaluation.scores}


def _values(scores: dict[str, Score]) -> dict[str, float | None]:
    """Return the values over the paper's columns; other benchmarks are not in the table."""
    return {column: scores[column].value if column in scores else None for column in COLUMNS}


def _minus(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
