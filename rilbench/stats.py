"""Intervals and tests: over seeds (Student's t) and over questions (bootstrap).

Every function takes differences that are paired already: A minus B, from the same seed or on the
same question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
RESAMPLES = 4000
BOOTSTRAP_SEED = 2510

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean difference with its interval, in the units of the differences."""

    mean: float
    low: float
    high: float

    def within(self, margin: float) -> bool:
        """Whether the whole interval lies within ±margin."""
        return -margin < self.low and self.high < margin


def seed_interval(differences: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean of paired differences, one for each seed.

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
    half = float(stats.t.ppf((1 + level) / 2, values.size - 1)) * error
    return Interval(mean, mean - half, mean + half)


def seed_p_value(differences: Sequence[float], null: float = 0.0) -> float:
    """Two-sided p-value of Student's t test that the mean paired difference is ``null``.

    One seed alone says nothing: 1. Differences that are all equal leave no room for chance: 0, or
    1 when they equal ``null``.
    """
    values = np.asarray(differences, dtype=np.float64) - null
    if values.size < 2:
        return 1.0
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    t = mean / (deviation / math.sqrt(values.size))
    return float(2 * stats.t.sf(abs(t), values.size - 1))


def question_interval(
    differences: Mapping[str, Array],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
) -> Interval:
    """Percentile interval of the mean over benchmarks, by a bootstrap over their questions.

    The benchmarks are strata: the questions of each are drawn anew from its own, so each keeps its
    weight of one in the mean.

    Args:
        differences: for each benchmark, one paired difference for each question (n,).
        level: of the interval.
        resamples: how often the questions are drawn.
        seed: of the draws; equal input gives equal output.

    Raises:
        ValueError: there is no benchmark, or one without questions.
    """
    if not differences or any(values.size == 0 for values in differences.values()):
        raise ValueError("the bootstrap needs questions in every benchmark")
    rng = np.random.default_rng(seed)
    totals = np.zeros(resamples)
    for values in differences.values():
        drawn = rng.integers(0, values.size, (resamples, values.size), dtype=np.int32)
        totals += values[drawn].mean(axis=1)
    means = totals / len(differences)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(np.mean([values.mean() for values in differences.values()]))
    return Interval(mean, float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given: the family-wise error of tests."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def prediction_bound(values: Sequence[float], alpha: float, least: float = 0.0) -> float:
    """The bound below which one more draw falls with probability ``alpha``.

    The lower end of Student's one-sided prediction interval: mean - t * sd * sqrt(1 + 1/n), exact
    for normal draws, the uncertainty of the mean and of the deviation included.

    Args:
        values: what was drawn.
        alpha: the chance.
        least: a smaller deviation than this is not believed.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a prediction bound needs at least two values")
    found = np.asarray(values, dtype=np.float64)
    n = found.size
    quantile = float(stats.t.ppf(1 - alpha, n - 1))
    deviation = max(float(found.std(ddof=1)), least)
    return float(found.mean()) - quantile * deviation * math.sqrt(1 + 1 / n)
