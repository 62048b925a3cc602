"""Intervals and tests: over seeds (Student's t) and over questions (bootstrap, paired tests).

Differences are paired: A minus B, from the same seed or on the same question. A tally counts the
questions that had each outcome (or each difference), by stratum. The score is the mean of the
strata's means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 4000
BOOTSTRAP_SEED = 2510

FLIPS = 10_000
"""Samples of the permutation test; its p-value is never below 1 / (FLIPS + 1)."""

Array = NDArray[np.float64]
Tally = Mapping[str, Mapping[float, int]]
"""By stratum: how many questions had each value."""


@dataclass(frozen=True)
class Interval:
    """A mean difference with its interval, in the units of the differences."""

    mean: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Return whether the whole interval lies within ±margin."""
        return -margin < self.low and self.high < margin


def seed_interval(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """Return Student's t interval of the mean of paired differences, one for each seed.

    One seed alone gives an interval without ends.

    Raises:
        ValueError: there is no difference at all.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size:
        raise ValueError("an interval needs at least one difference")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, -math.inf, math.inf)
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    half = _t_quantile((1 + level) / 2, values.size - 1) * error
    return Interval(mean, mean - half, mean + half)


def seed_p_value(differences: Sequence[float], null: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t test that the mean difference is ``null``.

    1 for a single seed, which says nothing. Differences that are all equal leave no room for
    chance: 0, or 1 when they equal ``null``.
    """
    from scipy.special import stdtr

    values = np.asarray(differences, dtype=np.float64) - null
    if values.size < 2:
        return 1.0
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    t = mean / (deviation / math.sqrt(values.size))
    return float(2 * stdtr(values.size - 1, -abs(t)))


def equivalence_p_value(differences: Sequence[float], margin: float) -> float:
    """Return the p-value of two one-sided t tests that the mean difference is within ``margin``.

    It is the larger of both; 1 for a single seed.
    """
    one_sided = []
    for null, sign in ((-margin, 1.0), (margin, -1.0)):
        shifted = [sign * (difference - null) for difference in differences]
        two_sided = seed_p_value(shifted)
        inside = float(np.mean(shifted)) > 0
        one_sided.append(two_sided / 2 if inside else 1 - two_sided / 2)
    return 1.0 if len(differences) < 2 else max(one_sided)


def detectable_difference(
    differences: Sequence[float], power: float = 0.8, level: float = LEVEL
) -> float:
    """Return the smallest mean difference that the test over seeds would probably find.

    Of the paired two-sided t test with as many seeds and the spread of these differences, by the
    noncentral t distribution; that it finds the opposite sign is neglected. Infinite for one seed.

    Args:
        differences: one for each seed.
        power: the probability that it is found.
        level: 1 minus the test's false alarms.

    Raises:
        ValueError: there is no difference at all.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not values.size:
        raise ValueError("a detectable difference needs at least one difference")
    if values.size == 1:
        return math.inf
    return float(values.std(ddof=1)) * _detectable_in_sds(values.size, power, level)


def seeds_needed(sd: float, effect: float, power: float = 0.8, level: float = LEVEL) -> int:
    """Return the number of seeds with which a difference of ``effect`` would probably be found.

    By the same test as `detectable_difference`.

    Args:
        sd: standard deviation of the paired differences, in the units of ``effect``.
        effect: the mean difference that matters; positive.
        power: the probability that it is found.
        level: 1 minus the test's false alarms.
    """
    number = 2
    while sd * _detectable_in_sds(number, power, level) > effect:
        number += 1
    return number


def _detectable_in_sds(number: int, power: float, level: float) -> float:
    from scipy.special import nctdtrinc

    freedom = number - 1
    quantile = _t_quantile((1 + level) / 2, freedom)
    return float(nctdtrinc(freedom, 1 - power, quantile)) / math.sqrt(number)


def question_interval(
    differences: Mapping[str, Array],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Return a percentile interval of the mean over benchmarks, by bootstrap over questions.

    The benchmarks are strata: the questions of each are resampled from its own, so each keeps its
    weight of one in the mean.

    Args:
        differences: for each benchmark, one paired difference for each question (n,).
        level: the interval's coverage.
        resamples: how often the questions are resampled.
        seed: random seed; equal input gives equal output.

    Raises:
        ValueError: there is no benchmark, or one without questions.
    """
    if not differences or any(values.size == 0 for values in differences.values()):
        raise ValueError("the bootstrap needs questions in every benchmark")
    rng = np.random.default_rng(seed)
    totals = np.zeros(resamples)
    for values in differences.values():
        chosen = rng.integers(0, values.size, (resamples, values.size), dtype=np.int32)
        totals += values[chosen].mean(axis=1)
    means = totals / len(differences)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(np.mean([values.mean() for values in differences.values()]))
    return Interval(mean, float(low), float(high))


def tally_mean(tally: Tally) -> float:
    """Return the mean of the strata's means, in the values' unit.

    Raises:
        ValueError: there is no stratum, or one without questions.
    """
    if not tally or any(sum(counts.values()) < 1 for counts in tally.values()):
        raise ValueError("a mean needs questions in every stratum")
    # Exact sums: the order in which questions were counted changes no digit.
    means = [
        math.fsum(value * count for value, count in counts.items()) / sum(counts.values())
        for counts in tally.values()
    ]
    return math.fsum(means) / len(means)


def resampled(tally: Tally, rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
    """Return (resamples,) scores, each stratum's questions resampled from its own.

    Resampling n questions with replacement gives the values multinomial counts, so the counts are
    sampled at once. This is the bootstrap itself, at a cost that does not grow with n.
    """
    total = np.zeros(resamples)
    for _, counts in sorted(tally.items()):  # Equal tallies are sampled alike, in any order.
        values = np.array(sorted(counts), dtype=np.float64)
        numbers = np.array([counts[value] for value in sorted(counts)], dtype=np.int64)
        n = int(numbers.sum())
        total += rng.multinomial(n, numbers / n, size=resamples) @ values / n
    return total / len(tally)


def bootstrap(
    tally: Tally, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Interval:
    """Return a percentile interval of a score over the questions that might have been asked.

    Args:
        tally: outcomes of one evaluation, or paired differences of two.
        level: the interval's coverage.
        resamples: how often the questions are resampled.
        seed: random seed; equal input gives equal output.

    Raises:
        ValueError: there is no stratum, or one without questions.
    """
    return bootstrap_average([tally], level, resamples, seed)


def bootstrap_average(
    tallies: Sequence[Tally],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Return the `bootstrap` interval of the plain mean of several independent scores.

    Raises:
        ValueError: there is no score, or a stratum without questions.
    """
    if not tallies:
        raise ValueError("an average needs at least one score")
    mean = sum(tally_mean(tally) for tally in tallies) / len(tallies)
    rng = np.random.default_rng(seed)
    scores = np.mean([resampled(tally, rng, resamples) for tally in tallies], axis=0)
    return quantile_interval(mean, scores, level)


def quantile_interval(mean: float, samples: Array, level: float = LEVEL) -> Interval:
    """Return the bootstrap's percentile interval: the middle ``level`` of the samples."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def paired_p_value(differences: Tally, seed: int = BOOTSTRAP_SEED) -> float:
    """Return the two-sided p-value of McNemar's exact test, or of sign flips.

    The null hypothesis is that neither side is better. McNemar's test applies when each question
    counts alike and is right or wrong. Otherwise (graded answers, several strata) each question's
    sides are swapped at random.

    Raises:
        ValueError: there is no stratum, or one without questions.
    """
    if len(differences) == 1:
        (counts,) = differences.values()
        changed = {value: count for value, count in counts.items() if value}
        if all(abs(value) == 1.0 for value in changed):
            return mcnemar_p_value(changed.get(1.0, 0), changed.get(-1.0, 0))
    return permutation_p_value(differences, seed)


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Return the p-value of McNemar's exact test: half of the changed questions are gained."""
    from scipy.special import bdtr

    # Both tails of a fair coin are alike: twice the smaller one. 1 when no question changed.
    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def permutation_p_value(
    differences: Tally, seed: int = BOOTSTRAP_SEED, flips: int = FLIPS
) -> float:
    """Return the p-value of a sign-flip permutation test that the mean of strata's means is 0.

    It is the share of random swaps, the observed one included, with as large a difference.

    Raises:
        ValueError: there is no stratum, or one without questions.
    """
    observed = abs(tally_mean(differences))
    rng = np.random.default_rng(seed)
    total = np.zeros(flips)
    for _, counts in sorted(differences.items()):
        sizes: dict[float, int] = {}
        for value, count in counts.items():
            sizes[abs(value)] = sizes.get(abs(value), 0) + count
        flipped = sum(
            size * (2.0 * rng.binomial(count, 0.5, flips) - count)
            for size, count in sorted(sizes.items())
        )
        total += flipped / sum(counts.values())
    # A difference that only rounding makes smaller than the observed counts as equal to it.
    as_large = int((np.abs(total / len(differences)) >= observed - 1e-12).sum())
    return (as_large + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values (family-wise error), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def prediction_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Return where one more run falls with probability ``level``, by Student's t.

    Raises:
        ValueError: fewer than two values.
    """
    low = prediction_bound(values, (1 - level) / 2)
    mean = math.fsum(values) / len(values)
    return Interval(mean, low, 2 * mean - low)


def prediction_bound(
    values: Sequence[float], alpha: float, least: float = 0.0, most_freedom: float = math.inf
) -> float:
    """Return the bound below which one more run falls with probability ``alpha``.

    This is the lower end of Student's one-sided prediction interval, mean - t * sd * sqrt(1 + 1/n).
    It is exact for normal values and includes the uncertainty of the mean and the deviation.

    Args:
        values: the runs' values.
        alpha: the probability.
        least: lower limit of the standard deviation.
        most_freedom: upper limit of t's degrees of freedom, for tails that many values do not thin.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a prediction bound needs at least two values")
    runs = np.asarray(values, dtype=np.float64)
    n = runs.size
    deviation = max(float(runs.std(ddof=1)), least)
    quantile = _t_quantile(1 - alpha, min(n - 1, most_freedom))
    return float(runs.mean()) - quantile * deviation * math.sqrt(1 + 1 / n)


def _t_quantile(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t distribution."""
    # Not scipy.stats, which takes a second to import.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
