"""Bounds of metrics, and what they are worth.

The chance that a clean run of all models in the file fails anywhere is `ALPHA`, split over the
models and their metrics (Bonferroni).

With seeds, a bound is the end of Student's prediction interval for one more seed, which allows for
the small number of seeds. Without, there is no spread between seeds: decoding is greedy, and the
same questions give the same responses up to rounding. The bound then allows for far more: that
another sample of as many questions was asked, before and now.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from rilbench.check.metrics import MEAN, MEMORY, TIME, TRAINING, Metric
from rilbench.stats import prediction_bound

ALPHA = 0.009
"""Chance that a clean run fails any of the metrics.

Less than the promised 1 %, so that the simulation's own noise does not break the promise.
"""
MEAN_SHARE, TRAINING_SHARE, BENCHMARK_SHARE = 0.7, 0.2, 0.1
"""Parts of a model's share of `ALPHA`; metrics of one kind divide theirs equally.

The mean has the most, because the promise of power is about it. One benchmark of fifty questions
varies so much between seeds that its metric finds only a collapse, whatever share it gets.
"""
SINGLE_WEIGHT = 0.1
"""Weight in `ALPHA` of a model without seeds; one with seeds weighs 1.

A normal quantile hardly grows when its chance becomes smaller; Student's, of a few seeds, does.
"""
DROP = 10.0
"""The drop of the mean, in points, that must be found with a power of 90 %."""
POWER = 0.9
MIN_SEEDS = 5
REPETITIONS = 20_000
_SIMULATION_SEED = 14

Array = NDArray[np.float64]
Metrics = Sequence[Metric]


@dataclass(frozen=True)
class Bound:
    """The worst value that a metric may have, and the smallest deterioration that is found.

    ``finds`` is a distance from the usual value, found with a power of `POWER`; None if it is
    further than a score can fall.
    """

    value: float
    finds: float | None


def seeded(metrics: Metrics) -> bool:
    """Whether a model's metrics come from seeds."""
    return max(len(metric.values) for metric in metrics) >= MIN_SEEDS


def levels(models: Sequence[Metrics]) -> list[dict[str, float]]:
    """Return each metric's part of `ALPHA` by name, for each model of the file."""

    def share(name: str) -> float:
        if name == MEAN:
            return MEAN_SHARE
        return TRAINING_SHARE if name in TRAINING else BENCHMARK_SHARE

    weights = [1.0 if seeded(metrics) else SINGLE_WEIGHT for metrics in models]
    alphas = []
    for metrics, weight in zip(models, weights, strict=True):
        alpha = ALPHA * weight / sum(weights)
        shares = [share(metric.name) for metric in metrics]
        total = sum(set(shares))
        alphas.append(
            {
                metric.name: alpha * part / total / shares.count(part)
                for metric, part in zip(metrics, shares, strict=True)
            }
        )
    return alphas


def bound(metric: Metric, metrics: Metrics, alpha: float) -> Bound:
    """Return the bound of a metric among its model's, rounded away from the usual value."""
    sign = -1.0 if metric.lower_is_better else 1.0
    if len(metric.values) >= MIN_SEEDS:
        least = least_deviation(metric)
        value = prediction_bound([sign * v for v in metric.values], alpha, least)
        finds = _detectable(metric, alpha, least)
    else:
        error = math.sqrt(2) * error_of(metric, metrics)
        reach = float(stats.norm.isf(alpha)) * error
        value = metric.usual - reach
        finds = reach + float(stats.norm.ppf(POWER)) * error
    limit = sign * math.floor(value * 10_000) / 10_000
    finds = round(finds, 4)
    if metric.name in TRAINING:
        return Bound(limit, finds)
    return Bound(max(0.0, limit), finds if finds <= metric.usual else None)


def least_deviation(metric: Metric) -> float:
    """Return the deviation below which the agreement of a few seeds is chance.

    One question of a benchmark (for the mean, nothing: it has many), one percent of time and
    memory, half a percent of a share.
    """
    if metric.questions:
        return 100.0 / metric.questions
    if metric.name in (TIME, MEMORY):
        return 0.01 * metric.usual
    return 0.005 if metric.name in TRAINING else 0.0


def error_of(metric: Metric, metrics: Metrics) -> float:
    """Return the standard error, in points, of a score that was measured once, over questions.

    An outcome between 0 and 1 varies at most as much as one that is 0 or 1. The mean's error is
    that of the plain mean over the benchmarks.
    """
    if metric.name == MEAN:
        parts = [error_of(benchmark, metrics) for benchmark in metrics if benchmark.questions]
        return math.sqrt(sum(part**2 for part in parts)) / len(parts)
    share = _share(metric)
    return 100 * math.sqrt(share * (1 - share) / metric.questions)


def _share(metric: Metric) -> float:
    """Return the share of right answers, with one right and one wrong answer added.

    Without them a full score would be taken for certain.
    """
    return (metric.usual / 100 * metric.questions + 1) / (metric.questions + 2)


def _detectable(metric: Metric, alpha: float, least: float) -> float:
    """Return the change that is found with a chance of `POWER`, by the noncentral t."""
    n = len(metric.values)
    deviation = max(statistics.stdev(metric.values), least)
    quantile = float(stats.t.isf(alpha, n - 1))

    def excess(distance: float) -> float:
        return float(stats.nct.sf(quantile, n - 1, distance)) - POWER

    return float(optimize.brentq(excess, 0.0, 20 * quantile)) * deviation * math.sqrt(1 + 1 / n)


# ---- what the bounds are worth


def false_alarms(
    models: Sequence[Metrics], repetitions: int = REPETITIONS, *, heavy: bool = False
) -> float:
    """Return the share of clean runs of all models that fail anywhere, by simulation.

    Calibration and run are both sampled again. Seeds are sampled with the calibration's means and
    deviations; metrics are independent, which gives the most false alarms for their levels. For a
    model without seeds every question's outcome is sampled on both sides, which is more than ever
    happens.

    Args:
        models: the metrics of each.
        repetitions: number of simulated runs.
        heavy: sample seeds from Student's t with 5 degrees of freedom, for tails that are not
            normal.
    """
    rng = np.random.default_rng(_SIMULATION_SEED)
    failed = np.zeros(repetitions, dtype=bool)
    for metrics, alphas in zip(models, levels(models), strict=True):
        if seeded(metrics):
            for metric in metrics:
                failed |= _seeds_fail(metric, alphas[metric.name], failed.size, rng, heavy=heavy)
        else:
            failed |= _single_fails(metrics, alphas, failed.size, rng)
    return float(failed.mean())


def power(
    metrics: Metrics,
    alphas: Mapping[str, float],
    *,
    wide: bool = False,
    repetitions: int = REPETITIONS,
) -> float:
    """Return the chance that the mean's bound alone finds a mean lower by `DROP`.

    Args:
        metrics: the model's.
        alphas: from `levels`.
        wide: with the deviation between seeds at the upper end of its 95 % interval.
        repetitions: number of simulated runs.
    """
    rng = np.random.default_rng(_SIMULATION_SEED)
    if not seeded(metrics):
        return float(_single_fails(metrics, alphas, repetitions, rng, DROP, only=MEAN).mean())
    mean = next(metric for metric in metrics if metric.name == MEAN)
    freedom = len(mean.values) - 1
    factor = math.sqrt(freedom / float(stats.chi2.ppf(0.025, freedom))) if wide else 1.0
    fails = _seeds_fail(mean, alphas[MEAN], repetitions, rng, factor=factor, drop=DROP)
    return float(fails.mean())


def _seeds_fail(
    metric: Metric,
    alpha: float,
    repetitions: int,
    rng: np.random.Generator,
    *,
    factor: float = 1.0,
    drop: float = 0.0,
    heavy: bool = False,
) -> NDArray[np.bool_]:
    """Return (R,) whether one more seed, worse by ``drop``, is beyond the bound of the others."""
    n, least = len(metric.values), least_deviation(metric)
    shape = (repetitions, n + 1)
    seeds = rng.standard_t(5, shape) / math.sqrt(5 / 3) if heavy else rng.standard_normal(shape)
    seeds *= factor * max(statistics.stdev(metric.values), least)
    seen, new = seeds[:, :n], seeds[:, n] - drop
    deviation = np.maximum(seen.std(axis=1, ddof=1), least)
    reach = float(stats.t.isf(alpha, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    fails: NDArray[np.bool_] = new < seen.mean(axis=1) - reach
    return fails


def _single_fails(
    metrics: Metrics,
    alphas: Mapping[str, float],
    repetitions: int,
    rng: np.random.Generator,
    drop: float = 0.0,
    only: str = "",
) -> NDArray[np.bool_]:
    """Return (R,) whether an evaluation on other questions, worse by ``drop``, fails any metric."""

    def reach(alpha: float, variance: Array) -> Array:
        distance: Array = float(stats.norm.isf(alpha)) * np.sqrt(2 * variance)
        return distance

    failed = np.zeros(repetitions, dtype=bool)
    before, now, variance = [], [], []
    for metric in metrics:
        if not metric.questions:
            continue
        n, share = metric.questions, _share(metric)
        worse = max(share - drop / 100, 0.0)
        old, new = (100 * rng.binomial(n, p, repetitions) / n for p in (share, worse))
        smooth = (old / 100 * n + 1) / (n + 2)
        before.append(old)
        now.append(new)
        variance.append(1e4 * smooth * (1 - smooth) / n)
        if only in ("", metric.name):
            failed |= new < old - reach(alphas[metric.name], variance[-1])
    if MEAN in alphas and only in ("", MEAN):
        total = np.sum(variance, axis=0) / len(variance) ** 2
        failed |= np.mean(now, axis=0) < np.mean(before, axis=0) - reach(alphas[MEAN], total)
    return failed
