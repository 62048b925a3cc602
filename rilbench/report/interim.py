"""Stands in for `rilbench.stats.bootstrap` until it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rilbench.stats import BOOTSTRAP_SEED, RESAMPLES, Interval

Tally = Mapping[str, Mapping[float, int]]


def bootstrap(tally: Tally) -> Interval:
    """Percentile interval of a score."""
    return bootstrap_average([tally])


def bootstrap_average(tallies: Sequence[Tally]) -> Interval:
    """The same of the mean of several."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = np.zeros(RESAMPLES)
    mean = 0.0
    for tally in tallies:
        for counts in tally.values():
            values = np.fromiter(counts.keys(), dtype=np.float64)
            found = np.fromiter(counts.values(), dtype=np.int64)
            n = int(found.sum())
            weight = n * len(tally) * len(tallies)
            drawn += rng.multinomial(n, found / n, size=RESAMPLES) @ values / weight
            mean += float(values @ found) / weight
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
