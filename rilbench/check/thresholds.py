"""Bounds of metrics, and what they are worth.

The chance that a clean run of all models in the file fails anywhere is `ALPHA`, split over the
models and their metrics (Bonferroni).

With seeds, a bound is the end of Student's prediction interval for one more seed, which allows for
the small number of seeds, and by `MOST_FREEDOM` for seeds that are not normal. Without, decoding is
greedy, and the same questions give the same responses up to rounding. The bound is then a number of
questions that may get a worse outcome, with `FLIP_RATE` for each; questions that get better do not
make up for them.

``make bench-gate`` measures false alarms and power on the runs and outcomes in this tree.
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

A few more questions make the chance of many flips far smaller; Student's quantile of a few seeds
grows quickly.
"""
FLIP_RATE = 0.003
"""Chance that one question's outcome changes by another machine's rounding.

The upper end of the 95 % interval for what was seen: no change in 1,000 questions.
"""
LEAST_MEAN_DEVIATION = 1.6
LEAST_BENCHMARK_DEVIATION = 3.0
"""Points that the mean, and a benchmark, vary between seeds at least.

Seeds are not normal. Of ten that agree within two points, the next may lose one skill and with it
half of one benchmark. These are about the root mean square of the mean's deviation in the tree's
families (1.7), and the upper quartile of a benchmark's (2.8); with less, more than 1 % of their
seeds fail against the others of their family.
"""
MOST_FREEDOM = 9
"""Degrees of freedom of Student's t at most.

More seeds tell the deviation better, but they do not make the tails thinner: with 32 seeds and t's
own 31, 6 of 224 new seeds failed (2.7 %).
"""
DROP = 10.0
"""The drop of the mean, in points, that must be found with a power of 90 %."""
POWER = 0.9
MIN_SEEDS = 5
REPETITIONS = 20_000
_SIMULATION_SEED = 14

Metrics = Sequence[Metric]


@dataclass(frozen=True)
class Bound:
    """The worst value that a metric may have, and the smallest deterioration that is found.

    Attributes:
        value: the limit.
        finds: a distance from the usual value, found with a power of `POWER`; None if it is
            further than a score can fall.
        worse: questions that may get a worse outcome, for a model without seeds; else None.
    """

    value: float
    finds: float | None
    worse: int | None = None


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
    if len(metric.values) < MIN_SEEDS:
        worse, cost = allowed_worse(metric, metrics, alpha)
        limit = max(0.0, math.floor((metric.usual - cost * worse) * 10_000) / 10_000)
        return Bound(limit, round(cost * (worse + 1), 4) if limit else None, worse)
    sign, least = -1.0 if metric.lower_is_better else 1.0, least_deviation(metric)
    value = prediction_bound([sign * v for v in metric.values], alpha, least, MOST_FREEDOM)
    limit = sign * math.floor(value * 10_000) / 10_000
    finds = round(_detectable(metric, alpha, least), 4)
    if metric.name in TRAINING:
        return Bound(limit, finds)
    return Bound(max(0.0, limit), finds if finds <= metric.usual else None)


def allowed_worse(metric: Metric, metrics: Metrics, alpha: float) -> tuple[int, float]:
    """Return how many questions may get worse by rounding, and the points that one costs at most.

    Args:
        metric: a benchmark or the mean of a model without seeds.
        metrics: all of the model's.
        alpha: the chance that more do.
    """
    benchmarks = [each for each in metrics if each.questions]
    if metric.name == MEAN:
        questions = sum(each.questions for each in benchmarks)
        cost = 100 / len(benchmarks) / min(each.questions for each in benchmarks)
    else:
        questions, cost = metric.questions, 100 / metric.questions
    return int(stats.binom.isf(alpha, questions, FLIP_RATE)), cost


def least_deviation(metric: Metric) -> float:
    """Return the deviation below which the agreement of a few seeds is chance.

    `LEAST_BENCHMARK_DEVIATION` of a benchmark, and one question at least; `LEAST_MEAN_DEVIATION` of
    the mean; one percent of time and memory; half a percent of a share.
    """
    if metric.questions:
        return max(LEAST_BENCHMARK_DEVIATION, 100.0 / metric.questions)
    if metric.name == MEAN:
        return LEAST_MEAN_DEVIATION
    if metric.name in (TIME, MEMORY):
        return 0.01 * metric.usual
    return 0.005


def _detectable(metric: Metric, alpha: float, least: float) -> float:
    """Return the change that is found with a chance of `POWER`, by the noncentral t."""
    n = len(metric.values)
    deviation = max(statistics.stdev(metric.values), least)
    quantile = _quantile(alpha, n)

    def excess(distance: float) -> float:
        return float(stats.nct.sf(quantile, n - 1, distance)) - POWER

    return float(optimize.brentq(excess, 0.0, 20 * quantile)) * deviation * math.sqrt(1 + 1 / n)


def _quantile(alpha: float, seeds: int) -> float:
    """Student's quantile for the bound of so many seeds."""
    return float(stats.t.isf(alpha, min(seeds - 1, MOST_FREEDOM)))


# ---- what the bounds are worth


def false_alarms(
    models: Sequence[Metrics], repetitions: int = REPETITIONS, *, heavy: bool = False
) -> float:
    """Return the share of clean runs of all models that fail anywhere, by simulation.

    Calibration and run are both sampled again. Seeds are sampled with the calibration's means and
    deviations; metrics are independent, which gives the most false alarms for their levels. For a
    model without seeds, each question gets worse with `FLIP_RATE`.

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
    reach = _quantile(alpha, n) * deviation * math.sqrt(1 + 1 / n)
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
    """Return (R,) whether a repeated evaluation, worse by ``drop`` points, fails any metric.

    Each right answer becomes wrong with the chance that lowers the score by ``drop``; a benchmark
    below it falls to 0.
    """
    failed = np.zeros(repetitions, dtype=bool)
    total = np.zeros(repetitions, dtype=np.int64)
    for metric in metrics:
        if not metric.questions:
            continue
        lost = rng.binomial(metric.questions, FLIP_RATE, repetitions)
        right = round(metric.usual / 100 * metric.questions)
        if drop and right:
            lost += rng.binomial(right, min(1.0, drop / metric.usual), repetitions)
        total += lost
        if only in ("", metric.name):
            failed |= lost > allowed_worse(metric, metrics, alphas[metric.name])[0]
    if MEAN in alphas and only in ("", MEAN):
        mean = next(metric for metric in metrics if metric.name == MEAN)
        failed |= total > allowed_worse(mean, metrics, alphas[MEAN])[0]
    return failed
