"""Intervals of scores over the questions that might have been asked, from counts of outcomes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger.builder import sha256
from rilbench.ledger.queries import Tally
from rilbench.stats import BOOTSTRAP_SEED, Array, Interval, quantile_interval, resampled
from rilbench.table.types import Origin

Tallies = Mapping[tuple[int, str], Tally]
"""Counts of outcomes by evaluation and benchmark; see `rilbench.ledger.queries.tallies`."""

_RESAMPLES = 1000
"""A quarter of a comparison's: a table has hundreds of cells and shows one digit."""


class ResampledScores:
    """Each evaluation's scores with their questions resampled, computed once.

    Every benchmark has a random stream of its own, so that benchmarks are independent.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._scores: dict[tuple[int, str], Array] = {}

    def of(self, origin: Origin) -> Array | None:
        """Return (resamples,) scores in points; None when the samples do not give the score.

        The ledger may lack them, or the score is no mean of them.
        """
        key = (origin.evaluation.id or 0, origin.score.benchmark)
        is_total = origin.evaluation.reading(origin.score.benchmark).is_total
        if key not in self._tallies or is_total:
            return None
        if key not in self._scores:
            rng = np.random.default_rng([BOOTSTRAP_SEED, _stream(origin.score.benchmark)])
            self._scores[key] = 100.0 * resampled(self._tallies[key], rng, _RESAMPLES)
        return self._scores[key]

    def interval(self, seeds: Sequence[Sequence[Origin]]) -> Interval | None:
        """Return the interval of the mean over seeds of each seed's mean over its scores.

        For several seeds it is the mean of their intervals, which is never too narrow: they answer
        the same questions, so that their mean varies at most as much. None when the ledger lacks
        samples.
        """
        intervals = []
        for origins in seeds:
            scores = [self.of(origin) for origin in origins]
            known = [score for score in scores if score is not None]
            if not known or len(known) < len(scores):
                return None
            value = statistics.fmean(origin.score.value or 0.0 for origin in origins)
            intervals.append(quantile_interval(value, np.mean(known, axis=0)))
        if not intervals:
            return None
        ends = ((interval.mean, interval.low, interval.high) for interval in intervals)
        return Interval(*(statistics.fmean(values) for values in zip(*ends, strict=True)))


def _stream(benchmark: str) -> int:
    """Return the number of a benchmark's random stream."""
    if benchmark in PAPER_14:
        return PAPER_14.index(benchmark)
    return len(PAPER_14) + int(sha256(benchmark)[:8], 16)
