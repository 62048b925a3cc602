"""Bounds of cells, and what they are worth.

The chance that a clean run of all models in the file fails anywhere is `ALPHA`, split over the
models and their cells (Bonferroni). A bound of a model with seeds is the end of Student's
prediction interval for one more seed, so that it allows for the few that it is made from. A model
that was evaluated once has no spread between seeds: decoding is greedy, and the same questions give
the same answers but for numerics. Its bound allows for far more: that another sample of as many
questions was asked, before and now.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from rilbench.check.metrics import MEAN, MEMORY, TIME, TRAINING, Cell
from rilbench.stats import prediction_bound

ALPHA = 0.009
"""Chance that a clean run fails any of the cells.

Less than the 1 % that is promised, so that the simulation's own noise does not break the promise.
"""
MEAN_SHARE, TRAINING_SHARE, BENCHMARK_SHARE = 0.7, 0.2, 0.1
"""Parts of what a model gets of `ALPHA`; cells of one kind share theirs equally.

The mean has the most, as the promise of power is about it. One benchmark of fifty questions varies
so much from seed to seed that its cell finds a collapse and no more, whatever it is given.
"""
SINGLE_WEIGHT = 0.1
"""What a model without seeds gets of `ALPHA`, for each 1 of one with seeds.

A normal quantile hardly grows when its chance becomes smaller; Student's, of a few seeds, does.
"""
DROP = 10.0
"""The drop of the mean, in points, that must be found with a power of 90 %."""
POWER = 0.9
MIN_SEEDS = 5
REPETITIONS = 20_000
_SIMULATION_SEED = 14

Array = NDArray[np.float64]
Cells = Sequence[Cell]


@dataclass(frozen=True)
class Bound:
    """The worst value that a cell may have, and the smallest change for the worse that is found.

    ``finds`` is a distance from the usual value, found with a power of `POWER`; None where that is
    further than a score can fall.
    """

    value: float
    finds: float | None


def seeded(cells: Cells) -> bool:
    """Whether a model's cells come from seeds."""
    return max(len(cell.values) for cell in cells) >= MIN_SEEDS


def levels(models: Sequence[Cells]) -> list[dict[str, float]]:
    """Each cell's part of `ALPHA`, for each model of the file."""
    weights = [1.0 if seeded(cells) else SINGLE_WEIGHT for cells in models]
    return [
        _split([cell.name for cell in cells], ALPHA * weight / sum(weights))
        for cells, weight in zip(models, weights, strict=True)
    ]


def _split(names: Sequence[str], alpha: float) -> dict[str, float]:
    def share(name: str) -> float:
        if name == MEAN:
            return MEAN_SHARE
        return TRAINING_SHARE if name in TRAINING else BENCHMARK_SHARE

    kinds = [share(name) for name in names]
    total = sum(set(kinds))
    return {
        name: alpha * kind / total / kinds.count(kind)
        for name, kind in zip(names, kinds, strict=True)
    }


def bound(cell: Cell, cells: Cells, alpha: float) -> Bound:
    """The bound of a cell among its model's; it is rounded away from the usual value."""
    sign = -1.0 if cell.lower_is_better else 1.0
    if len(cell.values) >= MIN_SEEDS:
        least = least_deviation(cell)
        value = prediction_bound([sign * v for v in cell.values], alpha, least)
        finds = _finds(cell, alpha, least)
    else:
        error = math.sqrt(2) * error_of(cell, cells)
        reach = float(stats.norm.isf(alpha)) * error
        value = cell.usual - reach
        finds = reach + float(stats.norm.ppf(POWER)) * error
    if cell.name not in TRAINING:
        return Bound(max(0.0, _outwards(sign, value)), _reachable(finds, cell))
    return Bound(_outwards(sign, value), round(finds, 4))


def _reachable(distance: float, cell: Cell) -> float | None:
    return round(distance, 4) if distance <= cell.usual else None


def _outwards(sign: float, value: float) -> float:
    return sign * math.floor(value * 10_000) / 10_000


def least_deviation(cell: Cell) -> float:
    """A smaller spread than this between a few seeds is chance.

    One question of a benchmark (for the mean, nothing: it has many), one percent of time and
    memory, half a percent of a share.
    """
    if cell.questions:
        return 100.0 / cell.questions
    if cell.name in (TIME, MEMORY):
        return 0.01 * cell.usual
    return 0.005 if cell.name in TRAINING else 0.0


def error_of(cell: Cell, cells: Cells) -> float:
    """Standard error, in points, of a score that was measured once, from its questions.

    An outcome between 0 and 1 varies at most as much as one that is 0 or 1. One right and one wrong
    answer are added, so that a full score is not taken for certain. The mean's is that of the
    plain mean over the benchmarks.
    """
    if cell.name == MEAN:
        parts = [error_of(each, cells) for each in cells if each.questions]
        return math.sqrt(sum(part**2 for part in parts)) / len(parts)
    share = _share(cell)
    return 100 * math.sqrt(share * (1 - share) / cell.questions)


def _share(cell: Cell) -> float:
    return (cell.usual / 100 * cell.questions + 1) / (cell.questions + 2)


def _finds(cell: Cell, alpha: float, least: float) -> float:
    """The change whose chance to be found is `POWER`: Student's t is then not central."""
    n = len(cell.values)
    deviation = max(statistics.stdev(cell.values), least)
    quantile = float(stats.t.isf(alpha, n - 1))

    def lacks(distance: float) -> float:
        return float(stats.nct.sf(quantile, n - 1, distance)) - POWER

    return float(optimize.brentq(lacks, 0.0, 20 * quantile)) * deviation * math.sqrt(1 + 1 / n)


# ---- what the bounds are worth


def false_alarms(
    models: Sequence[Cells], repetitions: int = REPETITIONS, *, heavy: bool = False
) -> float:
    """Share of clean runs of all models that fail anywhere, calibration and run drawn anew.

    Seeds' draws have the calibration's means and deviations; cells are independent, which gives the
    most false alarms for their levels. Of a model without seeds the outcome of every question is
    drawn anew on both sides, which is more than ever happens.

    Args:
        models: the cells of each.
        repetitions: how many.
        heavy: seeds' draws of Student's t with 5 degrees of freedom, for tails that are not normal.
    """
    rng = np.random.default_rng(_SIMULATION_SEED)
    failed = np.zeros(repetitions, dtype=bool)
    for cells, alphas in zip(models, levels(models), strict=True):
        if seeded(cells):
            for cell in cells:
                failed |= _seeds_fail(cell, alphas[cell.name], failed.size, rng, heavy=heavy)
        else:
            failed |= _single_fails(cells, alphas, failed.size, rng)
    return float(failed.mean())


def power(
    cells: Cells, alphas: Mapping[str, float], *, wide: bool = False, repetitions: int = REPETITIONS
) -> float:
    """Chance that a mean lower by `DROP` is found by the mean's cell alone.

    Args:
        cells: of the model.
        alphas: from `levels`.
        wide: with the deviation between seeds at the upper end of its 95 % interval.
        repetitions: how many draws.
    """
    rng = np.random.default_rng(_SIMULATION_SEED)
    if not seeded(cells):
        return float(_single_fails(cells, alphas, repetitions, rng, DROP, only=MEAN).mean())
    mean = next(cell for cell in cells if cell.name == MEAN)
    factor = _spread(len(mean.values)) if wide else 1.0
    fails = _seeds_fail(mean, alphas[MEAN], repetitions, rng, factor=factor, drop=DROP)
    return float(fails.mean())


def _spread(seeds: int) -> float:
    """How many times larger the deviation may be than measured, at the end of its 95 % interval."""
    return math.sqrt((seeds - 1) / float(stats.chi2.ppf(0.025, seeds - 1)))


def _seeds_fail(
    cell: Cell,
    alpha: float,
    repetitions: int,
    rng: np.random.Generator,
    *,
    factor: float = 1.0,
    drop: float = 0.0,
    heavy: bool = False,
) -> NDArray[np.bool_]:
    """Whether one more seed, worse by ``drop``, falls beyond the bound of the others (R,)."""
    n, least = len(cell.values), least_deviation(cell)
    shape = (repetitions, n + 1)
    draws = rng.standard_t(5, shape) / math.sqrt(5 / 3) if heavy else rng.standard_normal(shape)
    draws *= factor * max(statistics.stdev(cell.values), least)
    seen, new = draws[:, :n], draws[:, n] - drop
    deviation = np.maximum(seen.std(axis=1, ddof=1), least)
    reach = float(stats.t.isf(alpha, n - 1)) * deviation * math.sqrt(1 + 1 / n)
    fails: NDArray[np.bool_] = new < seen.mean(axis=1) - reach
    return fails


def _single_fails(
    cells: Cells,
    alphas: Mapping[str, float],
    repetitions: int,
    rng: np.random.Generator,
    drop: float = 0.0,
    only: str = "",
) -> NDArray[np.bool_]:
    """Whether an evaluation of other questions, worse by ``drop`` points, fails any cell (R,)."""
    failed = np.zeros(repetitions, dtype=bool)
    before, now, variance = [], [], []
    for cell in cells:
        if not cell.questions:
            continue
        n, share = cell.questions, _share(cell)
        worse = max(share - drop / 100, 0.0)
        old, new = (100 * rng.binomial(n, p, repetitions) / n for p in (share, worse))
        smooth = (old / 100 * n + 1) / (n + 2)
        before.append(old)
        now.append(new)
        variance.append(1e4 * smooth * (1 - smooth) / n)
        if only in ("", cell.name):
            failed |= new < old - _reach(alphas[cell.name], variance[-1])
    if MEAN in alphas and only in ("", MEAN):
        total = np.sum(variance, axis=0) / len(variance) ** 2
        failed |= np.mean(now, axis=0) < np.mean(before, axis=0) - _reach(alphas[MEAN], total)
    return failed


def _reach(alpha: float, variance: Array) -> Array:
    reach: Array = float(stats.norm.isf(alpha)) * np.sqrt(2 * variance)
    return reach
