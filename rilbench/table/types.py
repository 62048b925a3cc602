"""The table's rows and cells, and where each of their numbers comes from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger.records import Evaluation, Score
from rilbench.stats import Interval

UNTRAINED = "base"
"""The method of a model before training."""
AVERAGE = "average"
"""The name of the mean among the columns."""
CATEGORY = ": "
"""Between a benchmark's name and its category's in a column's name."""
FEWEST_SEEDS = 3
"""Seeds below which the run-to-run spread is unknown."""


@dataclass(frozen=True)
class Origin:
    """A score and its evaluation."""

    score: Score
    evaluation: Evaluation


@dataclass(frozen=True)
class TableCell:
    """One measured number, in points; the mean of several seeds.

    Attributes:
        value: 0 to 100; None without a score.
        origins: one per seed; none for the average, which comes from the row's cells.
        questions: the 95 % interval over the questions that might have been asked.
        runs: where another seed's score falls with 95 % probability; None below three seeds.
        paper: the paper's number for the same student, method and teacher; None beside a sample.
        odd: in which parts of its provenance it differs from the rest of its row or column, or
            one of its seeds from the others.
        published: whether the data are known to be the published ones.
    """

    value: float | None
    origins: tuple[Origin, ...] = ()
    questions: Interval | None = None
    runs: Interval | None = None
    paper: float | None = None
    odd: tuple[str, ...] = ()
    published: bool = False

    @property
    def incomplete(self) -> bool:
        """Whether too few questions have a verdict for the number to stand for all of them."""
        return any(origin.score.is_incomplete for origin in self.origins)

    @property
    def difference(self) -> float | None:
        """The difference from the paper's number; None for an incomplete score."""
        return None if self.incomplete else minus(self.value, self.paper)

    @property
    def reproduced(self) -> bool | None:
        """Whether another seed might give the paper's number; None when that is unknown.

        Only the run-to-run spread can say so: the interval over questions is about other
        questions, and the paper's were these, of the published data.
        """
        if self.paper is None or self.runs is None or self.incomplete or not self.published:
            return None
        return self.runs.low <= self.paper <= self.runs.high


@dataclass(frozen=True)
class TableRow:
    """One model, or the seeds of one recipe, on one suite by one kit.

    Attributes:
        source: where the numbers come from.
        student: label.
        method: label; "base" is the untrained model.
        teacher: label.
        suite: such as "paper" or "nano".
        scores: 0 to 100 by benchmark, None without a score: the paper's 14 and every other
            benchmark that was measured.
        average: plain mean over ``over``; None when a score is missing or when the scores may not
            be averaged.
        over: the benchmarks of the average.
        origin: the paper's table, such as "Table 2"; empty for a measured row.
        cells: the cells of a measured row, by benchmark and `AVERAGE`.
        difference: in points from the row's starting point, by benchmark and `AVERAGE`; None for
            what cannot be compared, and None as a whole without a starting point.
        unlike: benchmarks whose provenance differs from the starting point's, so that they are
            not compared.
        mixed: benchmarks whose provenance differs from the rest of the row, so that no average is
            formed.
        evaluations: the row's evaluations, newest first; none for a paper row.
        seeds: how many runs the row is the mean of.
    """

    source: Literal["paper", "measured"]
    student: str
    method: str
    teacher: str
    suite: str
    scores: Mapping[str, float | None]
    average: float | None
    over: tuple[str, ...] = PAPER_14
    origin: str = ""
    cells: Mapping[str, TableCell] = field(default_factory=dict)
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
        """The kit that scored it; empty for a paper row."""
        return self.evaluations[0].kit if self.evaluations else ""

    def value(self, column: str) -> float | None:
        """Return a benchmark's number, or the average."""
        return self.average if column == AVERAGE else self.scores.get(column)

    def cell(self, column: str) -> TableCell:
        """Return a measured row's cell; an empty one for a benchmark that the row lacks."""
        return self.cells.get(column, TableCell(None))


@dataclass(frozen=True)
class Table:
    """A table to be written.

    Attributes:
        rows: in their order.
        notes: what a reader must know, one line each.
        over: the benchmarks of ``--average-over``; empty for the paper's.
        columns: the benchmarks shown.
        details: whether a measured row has lines of its changes and intervals, and the number of
            its evaluation.
    """

    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    columns: tuple[str, ...] = PAPER_14
    details: bool = True

    @property
    def mean(self) -> str:
        """The heading of the averages, which says so when they are not over the columns shown."""
        if self.over:
            return f"mean of {', '.join(self.over)}"
        return "mean" if self.columns == PAPER_14 else f"mean of {len(PAPER_14)}"


def benchmark_of(column: str) -> str:
    """Return the benchmark of a category's column, such as "MMStar: math", or of its own."""
    return column.partition(CATEGORY)[0]


def average(scores: Mapping[str, float | None], benchmarks: Iterable[str]) -> float | None:
    """Return the plain mean over benchmarks; None when one is missing or there is none."""
    values = [scores.get(benchmark) for benchmark in benchmarks]
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present and len(present) == len(values) else None


def minus(now: float | None, before: float | None) -> float | None:
    """Return the difference; None when either is missing."""
    return None if now is None or before is None else now - before


def in_order(benchmarks: Iterable[str]) -> tuple[str, ...]:
    """Return each benchmark once: the paper's in its order, then the others by name."""
    names = set(benchmarks)
    others = sorted(names.difference(PAPER_14), key=lambda name: (name.lower(), name))
    return (*(name for name in PAPER_14 if name in names), *others)
