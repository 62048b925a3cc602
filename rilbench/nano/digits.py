"""Pictures of four scanned digits, from four disjoint pools of handwriting.

The digits are the 1,797 real scans that scikit-learn carries (UCI, 43 writers, 8 × 8 pixels).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

CELL = 28
"""Side of one digit's cell in pixels: one merged patch of Qwen2.5-VL's vision tower."""

POOL_SIZES: Mapping[str, int] = {"pretrain": 1000, "prompts": 300, "dev": 150, "test": 347}
"""How many scans each purpose owns. No scan serves two purposes."""

_SPLIT_SEED = 20251022


@dataclass(frozen=True)
class Pool:
    """The scans of one purpose: ``index`` (N,) into scikit-learn's data set."""

    index: NDArray[np.int64]


@lru_cache(maxsize=1)
def _scans() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return data.images / 16.0, data.target.astype(np.int64)


@lru_cache(maxsize=1)
def pools() -> Mapping[str, Pool]:
    """Split the scans into the disjoint pools of `POOL_SIZES`; the same split on every machine."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(sum(POOL_SIZES.values()))
    bounds = np.cumsum([0, *POOL_SIZES.values()])
    return {
        name: Pool(np.sort(order[bounds[i] : bounds[i + 1]])) for i, name in enumerate(POOL_SIZES)
    }


@dataclass(frozen=True)
class Picture:
    """Four digits in two rows: top left, top right, bottom left, bottom right."""

    digits: tuple[int, int, int, int]
    scans: tuple[int, int, int, int]
    jpeg: bytes


def draw(pool: Pool, rng: np.random.Generator) -> Picture:
    """Draw a 56 × 56 grey picture of four scans of the pool, shifted and noisy, as JPEG bytes."""
    images, labels = _scans()
    scans = rng.choice(pool.index, size=4)
    cells = [_cell(images[i], rng) for i in scans]
    grid = np.vstack([np.hstack(cells[:2]), np.hstack(cells[2:])])
    pixels = (np.clip(grid, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, "JPEG", quality=90)
    a, b, c, d = (int(labels[i]) for i in scans)
    w, x, y, z = (int(i) for i in scans)
    return Picture((a, b, c, d), (w, x, y, z), buffer.getvalue())


def _cell(scan: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Place one scan, three times enlarged, at a random offset in its cell, with noise."""
    cell = np.zeros((CELL, CELL))
    top, left = rng.integers(0, CELL - 24, size=2)
    cell[top : top + 24, left : left + 24] = np.kron(scan, np.ones((3, 3)))
    return cell + rng.normal(0, 0.04, cell.shape)
