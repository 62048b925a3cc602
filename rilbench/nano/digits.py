"""Real handwritten digits, split into disjoint pools by purpose.

``digits.npz`` has the 1,797 scans of 8 × 8 pixels, in 17 shades, of the test set of "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998; UCI, CC BY 4.0), in its order.
They are not read from scikit-learn: where it is installed, transformers imports it in each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

POOL_SIZES: Mapping[str, int] = {
    "pretrain": 750,
    "pretrain-independent": 350,
    "prompts": 250,
    "dev": 150,
    "test": 297,
}
"""Number of scans of each purpose. No scan serves two purposes."""

_SPLIT_SEED = 20251022


@dataclass(frozen=True)
class Pool:
    """The scans of one purpose: ``index`` (N,) into `scans`."""

    name: str
    index: NDArray[np.int64]


@lru_cache(maxsize=1)
def scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """All scans (1797, 8, 8) between 0 and 1, and their digits (1797,)."""
    with np.load(Path(__file__).with_name("digits.npz")) as data:
        return data["images"] / 16.0, data["digits"].astype(np.int64)


@lru_cache(maxsize=1)
def pools() -> Mapping[str, Pool]:
    """Split the scans into the disjoint pools of `POOL_SIZES`; the same split on every machine."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(sum(POOL_SIZES.values()))
    bounds = np.cumsum([0, *POOL_SIZES.values()])
    return {
        name: Pool(name, np.sort(order[bounds[i] : bounds[i + 1]]))
        for i, name in enumerate(POOL_SIZES)
    }
