"""What a row of the table is, and what stands behind each of its numbers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rilbench.ledger.records import Evaluation, Score
from rilbench.stats import Interval

UNTRAINED = "base"
"""The method of a model as it was before training."""
AVERAGE = "average"
"""Stands among the columns for their mean."""
FEWEST_SEEDS = 3
"""Runs from which a spread is told; below it is unknown."""


@dataclass(frozen=True)
class Origin:
    """A score and the evaluation that it is from."""

    score: Score
    evaluation: Evaluation


@dataclass(frozen=True)
class Cell:
    """One measured number, in points; of several seeds their mean.

    Attributes:
        value: 0 to 100; None where there is none.
        origins: one for each seed; none for the average, which is of its row's cells.
        questions: the 95 % interval over the questions that might have been asked.
        runs: where another seed's score falls with 95 % probability; None below three seeds.
        paper: the paper's number for the same student, method and teacher.
        odd: in what it differs from the others of its row, and of its column.
    """

    value: float | None
    origins: tuple[Origin, ...] = ()
    questions: Interval | None = None
    runs: Interval | None = None
    paper: float | None = None
    odd: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """From the paper's number."""
        return minus(self.value, self.paper)

    @property
    def reproduced(self) -> bool | None:
        """The paper's number is one that another seed might give; None where that is unknown.

        Only the run-to-run spread can say so: the interval over questions is about other
        questions, and the paper's were these.
        """
        if self.paper is None or self.runs is None:
            return None
        return self.runs.low <= self.paper <= self.runs.high


@dataclass(frozen=True)
class TableRow:
    """One model, or the seeds of one recipe, on one suite by one kit.

    Attributes:
        source: where the numbers are from.
        student: label.
        method: label; "base" is the untrained model.
        teacher: label.
        suite: "paper" or "nano".
        scores: 0 to 100 for each of :data:`rilbench.benchmark_names.COLUMNS`, None where there is
            none.
        average: plain mean over the suite's columns, or those that were asked for; None when one
            is missing, or when they may not be averaged.
        origin: the paper's table, such as "Table 2"; empty for a measured row.
        cells: of a measured row, what stands behind each column and `AVERAGE`.
        difference: in points from the row's own starting point, for each column and `AVERAGE`;
            None where there is nothing to compare, and as a whole without a starting point.
        unlike: columns that both rows have but that were made in different ways (kit, data,
            metric or judge), so that they are not compared.
        mixed: columns that differ from the row's others in how they were made, so that no average
            is formed.
        evaluations: what was measured, the newest first; none for a paper row.
        seeds: how many runs the row is the mean of.
    """

    source: Literal["paper", "measured"]
    student: str
    method: str
    teacher: str
    suite: str
    scores: Mapping[str, float | None]
    average: float | None
    origin: str = ""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    difference: Mapping[str, float | None] | None = None
    unlike: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    seeds: int = 1

    @property
    def evaluation(self) -> Evaluation | None:
        """The newest of its evaluations."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def kit(self) -> str:
        """Which kit scored it; empty for a paper row."""
        return self.evaluations[0].kit if self.evaluations else ""

    def value(self, column: str) -> float | None:
        """A column's number, or the average's."""
        return self.average if column == AVERAGE else self.scores[column]


@dataclass(frozen=True)
class Table:
    """What is to be written down.

    Attributes:
        rows: in their order.
        notes: what a reader must know, a line each.
        over: the columns that the average is formed over, where they were asked for.
    """

    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    @property
    def mean(self) -> str:
        """The heading of the averages."""
        return f"mean of {', '.join(self.over)}" if self.over else "mean"


def average(scores: Mapping[str, float | None], columns: Iterable[str]) -> float | None:
    """Return the plain mean over ``columns``; None when one is missing or there is none."""
    values = [scores.get(column) for column in columns]
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present and len(present) == len(values) else None


def minus(now: float | None, before: float | None) -> float | None:
    """A difference, where there are both."""
    return None if now is None or before is None else now - before
