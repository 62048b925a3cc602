"""Two evaluations on the same questions: the difference of each benchmark, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError
from rilbench.ledger import Evaluation
from rilbench.ledger.queries import Pair
from rilbench.stats import Interval, bootstrap, bootstrap_average, holm, paired_p_value
from rilbench.table.comparability import within_column
from rilbench.table.types import AVERAGE, Origin

TOO_FEW = 100
"""Questions below which a difference is called by no name."""
LEVEL = 0.05
"""Of the adjusted p-value, below which a difference is held to be more than chance."""

Counts = dict[str, dict[float, int]]
"""By stratum: how many questions had each difference."""


@dataclass(frozen=True)
class Paired:
    """One benchmark, or the mean of all, on the questions that both have a verdict on; in points.

    Attributes:
        benchmark: the column, or `AVERAGE`.
        questions: how many.
        first: score on them.
        second: score on them.
        difference: the second's minus the first's, with its 95 % bootstrap interval.
        gained: questions on which the second is better.
        lost: questions on which it is worse.
        p: McNemar's exact test, or sign flips; None for the mean.
        adjusted: the same by Holm over the benchmarks.
        unlike: in what the two scores differ besides the model.
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

    @property
    def verdict(self) -> str:
        """What may be said: "better", "worse", "not decided" or "too few"."""
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
    """Compare benchmark by benchmark, in the paper's order, and the plain mean of all.

    Raises:
        UserError: the two have no question in common on which both have a verdict.
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
    ordered = sorted(groups, key=lambda name: (_place(name), name))
    unlike = _unlike(first, second)
    counts = {name: _counts(groups[name]) for name in ordered}
    found = [_one(name, groups[name], counts[name], unlike.get(name, ())) for name in ordered]
    adjusted = holm([each.p if each.p is not None else 1.0 for each in found])
    found = [replace(each, adjusted=p) for each, p in zip(found, adjusted, strict=True)]
    if len(found) > 1:
        found.append(_mean(found, list(counts.values())))
    return found


def _place(benchmark: str) -> int:
    return COLUMNS.index(benchmark) if benchmark in COLUMNS else len(COLUMNS)


def _counts(pairs: Sequence[Pair]) -> Counts:
    found: Counts = {}
    for pair in pairs:
        assert pair.first is not None
        assert pair.second is not None
        stratum = found.setdefault(pair.stratum, {})
        # Graded answers differ by tenths, which floats do not hit.
        change = round(pair.second - pair.first, 9)
        stratum[change] = stratum.get(change, 0) + 1
    return found


def _one(benchmark: str, pairs: Sequence[Pair], counts: Counts, unlike: tuple[str, ...]) -> Paired:
    sides = [_score(pairs, [pair.first or 0.0 for pair in pairs])]
    sides.append(_score(pairs, [pair.second or 0.0 for pair in pairs]))
    gained = sum(n for each in counts.values() for change, n in each.items() if change > 0)
    lost = sum(n for each in counts.values() for change, n in each.items() if change < 0)
    return Paired(
        benchmark=benchmark,
        questions=len(pairs),
        first=sides[0],
        second=sides[1],
        difference=_points(bootstrap(counts)),
        gained=gained,
        lost=lost,
        p=paired_p_value(counts),
        unlike=unlike,
    )


def _score(pairs: Sequence[Pair], values: Sequence[float]) -> float:
    """The mean of the strata's means, in points."""
    strata: dict[str, list[float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        strata.setdefault(pair.stratum, []).append(value)
    return 100.0 * sum(sum(each) / len(each) for each in strata.values()) / len(strata)


def _mean(found: Sequence[Paired], counts: Sequence[Counts]) -> Paired:
    return Paired(
        benchmark=AVERAGE,
        questions=sum(each.questions for each in found),
        first=sum(each.first for each in found) / len(found),
        second=sum(each.second for each in found) / len(found),
        difference=_points(bootstrap_average(counts)),
        gained=sum(each.gained for each in found),
        lost=sum(each.lost for each in found),
        unlike=tuple(dict.fromkeys(part for each in found for part in each.unlike)),
    )


def _points(interval: Interval) -> Interval:
    return Interval(100 * interval.mean, 100 * interval.low, 100 * interval.high)


def _unlike(first: Evaluation, second: Evaluation) -> Mapping[str, tuple[str, ...]]:
    """In what two scores of a benchmark differ, apart from the model."""
    sides = [
        {score.benchmark: within_column(Origin(score, each)) for score in each.scores}
        for each in (first, second)
    ]
    return {
        name: tuple(part for part in sides[0][name] if sides[0][name][part] != sides[1][name][part])
        for name in sides[0].keys() & sides[1].keys()
    }
