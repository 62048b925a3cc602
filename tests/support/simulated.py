"""Two models on questions drawn by chance, and how often the statistics are right about them.

Each question has a difficulty that both models feel, so that their outcomes go together as those of
two students of one family do. A model is right where the shared difficulty and its own luck,
together a standard normal, stay under the threshold that gives it its accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from rilbench.stats import Interval, bootstrap, paired_p_value

SETTINGS = tuple((n, accuracy) for n in (100, 500, 3000) for accuracy in (0.5, 0.9))
REPETITIONS = 5000
SHARED = 0.7
"""Correlation of the two models' latent normals."""

_CHUNK = 500_000  # questions drawn at once


@dataclass(frozen=True)
class Draws:
    """Repetitions of one setting, counts of each (repetitions,).

    Attributes:
        n: questions in each.
        right: questions that the first model answered.
        gained: questions that the first alone answered.
        lost: questions that the second alone answered.
    """

    n: int
    right: NDArray[np.int64]
    gained: NDArray[np.int64]
    lost: NDArray[np.int64]


def draw(n: int, accuracies: tuple[float, float], repetitions: int, seed: int) -> Draws:
    """Ask both models ``n`` new questions, again and again."""
    rng = np.random.default_rng(seed)
    found = []
    step = max(1, _CHUNK // n)
    for begin in range(0, repetitions, step):
        shape = (min(step, repetitions - begin), n)
        shared = math.sqrt(SHARED) * rng.standard_normal(shape)
        first, second = (
            shared + math.sqrt(1 - SHARED) * rng.standard_normal(shape) < norm.ppf(accuracy)
            for accuracy in accuracies
        )
        counts = (first, first & ~second, second & ~first)
        found.append([each.sum(axis=1) for each in counts])
    right, gained, lost = np.concatenate(found, axis=1)
    return Draws(n, right, gained, lost)


# A tally says all that the product's functions see of a repetition, and many have the same.
@cache
def plain(n: int, right: int) -> Interval:
    """`bootstrap`'s interval of one model's accuracy."""
    return bootstrap({"": _counts({1.0: right, 0.0: n - right})})


@cache
def paired(n: int, gained: int, lost: int) -> Interval:
    """`bootstrap`'s interval of the difference of two models."""
    return bootstrap({"": _differences(n, gained, lost)})


@cache
def p_value(n: int, gained: int, lost: int) -> float:
    """`paired_p_value` of the difference of two models."""
    return paired_p_value({"": _differences(n, gained, lost)})


def coverage(draws: Draws, accuracies: tuple[float, float]) -> tuple[float, float]:
    """Return how often the plain and the paired interval hold the truth."""
    difference = accuracies[0] - accuracies[1]
    alone = [_holds(plain(draws.n, int(right)), accuracies[0]) for right in draws.right]
    both = [
        _holds(paired(draws.n, int(gained), int(lost)), difference)
        for gained, lost in zip(draws.gained, draws.lost, strict=True)
    ]
    return float(np.mean(alone)), float(np.mean(both))


def rejections(draws: Draws, alpha: float = 0.05) -> float:
    """Return how often the paired test says that the models differ."""
    found = [
        p_value(draws.n, int(gained), int(lost)) <= alpha
        for gained, lost in zip(draws.gained, draws.lost, strict=True)
    ]
    return float(np.mean(found))


def _differences(n: int, gained: int, lost: int) -> dict[float, int]:
    return _counts({-1.0: lost, 0.0: n - gained - lost, 1.0: gained})


def _counts(counts: dict[float, int]) -> dict[float, int]:
    """As the ledger counts them: what did not occur is not there."""
    return {value: count for value, count in counts.items() if count}


def _holds(interval: Interval, truth: float) -> bool:
    # An end may be the truth but for rounding.
    return interval.low - 1e-9 <= truth <= interval.high + 1e-9
