"""Two evaluations on the same questions: each benchmark's difference and its significance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation
from rilbench.ledger.queries import Pair
from rilbench.stats import Interval, bootstrap, bootstrap_average, holm, paired_p_value
from rilbench.table.comparability import within_column
from rilbench.table.types import AVERAGE, Origin, in_order

TOO_FEW = 100
"""Questions below which no verdict is given."""
LEVEL = 0.05
"""Adjusted p-value below which a difference is more than chance."""

Counts = dict[str, dict[float, int]]
"""By stratum: how many questions had each difference."""


@dataclass(frozen=True)
class Paired:
    """One benchmark, or the mean, on the questions that have a verdict on both sides; in points.

    Attributes:
        benchmark: its name, or `AVERAGE`.
        questions: how many.
        first: the first evaluation's score on them.
        second: the second's.
        difference: the second's minus the first's, with its 95 % bootstrap interval.
        gained: questions on which the second is better.
        lost: questions on which it is worse.
        p: p-value of McNemar's exact test or of sign flips; None for the mean.
        adjusted: the same, adjusted by Holm over the comparable benchmarks; None for the others.
        unlike: parts of the provenance in which the two scores differ: they are not comparable.
        over: the benchmarks of the mean; empty for a benchmark.
        incomplete: on one side too few questions have a verdict; it is left out of the mean, and
            there is no verdict.
    """

    benchmark: str
    questions: int
    first: float
    second: float
    difference: Interval
    gained: int
    lost: int
    p: float | None = None
    adjusted: float | None = None
    unlike: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    incomplete: bool = False

    @property
    def verdict(self) -> str:
        """The second is "better", "worse", "not decided", "too few", or cannot be judged.

        That is "not comparable" or "incomplete".
        """
        if self.unlike or self.incomplete:
            return "not comparable" if self.unlike else "incomplete"
        if self.adjusted is None:
            decided = self.difference.low > 0 or self.difference.high < 0
        elif self.questions < TOO_FEW:
            return "too few"
        else:
            decided = self.adjusted < LEVEL
        if not decided:
            return "not decided"
        return "better" if self.difference.mean > 0 else "worse"


def paired(pairs: Iterable[Pair], first: Evaluation, second: Evaluation) -> list[Paired]:
    """Compare benchmark by benchmark: the paper's in its order, then the others by name.

    The plain mean over the paper's benchmarks follows if several are comparable; others do not
    count.

    Raises:
        UserError: the two have no question in common with a verdict on both sides.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.first is not None and pair.second is not None:
            groups.setdefault(pair.benchmark, []).append(pair)
    if not groups:
        raise UserError(
            f"evaluations {first.id} ({first.suite}) and {second.id} ({second.suite}) have no "
            "question in common; compare two of the same suite and split"
        )
    first_parts, second_parts = (
        {score.benchmark: within_column(Origin(score, side)) for score in side.scores}
        for side in (first, second)
    )
    names = in_order(groups)
    counts = {name: _counts(groups[name]) for name in names}
    benchmarks = []
    for name in names:
        parts = first_parts.get(name, {}), second_parts.get(name, {})
        unlike = tuple(p for p in parts[0] if parts[1] and parts[0][p] != parts[1][p])
        benchmarks.append(_one(name, groups[name], counts[name], unlike))
    incomplete = {s.benchmark for side in (first, second) for s in side.scores if s.is_incomplete}
    benchmarks = [replace(b, incomplete=b.benchmark in incomplete) for b in benchmarks]
    alike = [b for b in benchmarks if not b.unlike and not b.incomplete]
    adjusted = dict(
        zip(
            [b.benchmark for b in alike],
            holm([b.p if b.p is not None else 1.0 for b in alike]),
            strict=True,
        )
    )
    benchmarks = [replace(b, adjusted=adjusted.get(b.benchmark)) for b in benchmarks]
    paper = [b for b in alike if b.benchmark in PAPER_14]
    if len(paper) > 1:
        mean = Paired(
            benchmark=AVERAGE,
            questions=sum(b.questions for b in paper),
            first=sum(b.first for b in paper) / len(paper),
            second=sum(b.second for b in paper) / len(paper),
            difference=_points(bootstrap_average([counts[b.benchmark] for b in paper])),
            gained=sum(b.gained for b in paper),
            lost=sum(b.lost for b in paper),
            over=tuple(b.benchmark for b in paper),
        )
        benchmarks.append(mean)
    return benchmarks


def _counts(pairs: Sequence[Pair]) -> Counts:
    counts: Counts = {}
    for pair in pairs:
        # Graded answers differ by tenths, which floats do not represent exactly.
        change = round((pair.second or 0.0) - (pair.first or 0.0), 9)
        stratum = counts.setdefault(pair.stratum, {})
        stratum[change] = stratum.get(change, 0) + 1
    return counts


def _one(benchmark: str, pairs: Sequence[Pair], counts: Counts, unlike: tuple[str, ...]) -> Paired:
    changes = [(change, n) for stratum in counts.values() for change, n in stratum.items()]
    return Paired(
        benchmark=benchmark,
        questions=len(pairs),
        first=_score(pairs, [pair.first or 0.0 for pair in pairs]),
        second=_score(pairs, [pair.second or 0.0 for pair in pairs]),
        difference=_points(bootstrap(counts)),
        gained=sum(n for change, n in changes if change > 0),
        lost=sum(n for change, n in changes if change < 0),
        p=paired_p_value(counts),
        unlike=unlike,
    )


def _score(pairs: Sequence[Pair], values: Sequence[float]) -> float:
    """Return the mean of the strata's means, in points."""
    strata: dict[str, list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        strata.setdefault(pair.stratum, []).append(value)
    means = [sum(stratum) / len(stratum) for stratum in strata.values()]
    return 100.0 * sum(means) / len(means)


def _points(interval: Interval) -> Interval:
    return Interval(100 * interval.mean, 100 * interval.low, 100 * interval.high)
