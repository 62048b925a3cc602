"""Intervals of scores over the questions that might have been asked, from counts of outcomes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from rilbench.benchmark_names import COLUMNS
from rilbench.ledger.queries import Tally
from rilbench.stats import BOOTSTRAP_SEED, Array, Interval, quantile_interval, resampled
from rilbench.table.types import Origin

Tallies = Mapping[tuple[int, str], Tally]
"""Counts of outcomes by evaluation and benchmark; see `rilbench.ledger.queries.tallies`."""


_RESAMPLES = 1000
"""A quarter of what a comparison draws: a table has hundreds of cells and shows one digit."""


class Draws:
    """The scores of each evaluation and benchmark with its questions drawn anew.

    Benchmarks have streams of their own, so that their draws are independent of each other.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._drawn: dict[tuple[int, str], Array] = {}

    def of(self, origin: Origin) -> Array | None:
        """(resamples,) scores in points; None where the answers are not in the ledger."""
        key = (origin.evaluation.id or 0, origin.score.benchmark)
        if key not in self._tallies:
            return None
        if key not in self._drawn:
            rng = np.random.default_rng([BOOTSTRAP_SEED, _number(key[1])])
            self._drawn[key] = 100.0 * resampled(self._tallies[key], rng, _RESAMPLES)
        return self._drawn[key]

    def interval(self, seeds: Sequence[Sequence[Origin]]) -> Interval | None:
        """The interval of the mean over seeds of each seed's mean over its scores.

        Of several seeds it is the mean of their intervals, which is never too narrow: they answer
        the same questions, so that their mean varies at most as much.
        """
        found = []
        for origins in seeds:
            drawn = [self.of(origin) for origin in origins]
            known = [each for each in drawn if each is not None]
            if not known or len(known) < len(drawn):
                return None
            value = statistics.fmean(origin.score.value or 0.0 for origin in origins)
            found.append(quantile_interval(value, np.mean(known, axis=0)))
        if not found:
            return None
        ends = ((each.mean, each.low, each.high) for each in found)
        return Interval(*(statistics.fmean(values) for values in zip(*ends, strict=True)))


def _number(benchmark: str) -> int:
    return COLUMNS.index(benchmark) if benchmark in COLUMNS else len(COLUMNS)
