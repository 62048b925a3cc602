"""Which of many known pictures a picture is, or nearly is: made smaller, or saved anew.

The same picture has the same file or the same pixels. A near one has nearly the same fingerprint:
256 bits that say where the picture, reduced to 17 × 16 greys, gets brighter from left to right
(dHash), and nearly the same greys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rilbench.data.contamination.ngram_match import NEAR, SAME
from rilbench.data.images import open_picture

SIDE = 16
BITS = 24
"""Of 256, in how many a near picture may differ."""
GREY = 0.15
"""How far its greys may be off in the mean, as a share of how far they are from their own mean."""
FLAT = 4.0
"""Deviation of the greys below which a picture shows too little to be near another."""
_BLOCK = 32
"""Pictures that are compared with all known ones at a time."""
_MARGIN = 2
"""Greys that count as brighter: saving anew moves an even surface by less."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Print:
    """What a picture is known by."""

    keys: tuple[bytes, bytes]
    """SHA-256 of the file and of the pixels."""
    bits: Array
    """(4,) uint64."""
    greys: Array
    """(16 · 17,) float32 with mean 0."""

    @property
    def flat(self) -> bool:
        """It shows too little."""
        return float(self.greys.std()) < FLAT


def print_of(image: bytes) -> Print:
    """The fingerprint of an encoded picture.

    Raises:
        RefusedError: it cannot be read.
    """
    picture = open_picture(image)
    pixels = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    small = picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    greys = np.asarray(small, dtype=np.int16)
    bits = np.packbits(np.diff(greys, axis=1) > _MARGIN).view(np.uint64)
    flat = greys.astype(np.float32).reshape(-1)
    return Print((hashlib.sha256(image).digest(), pixels), bits, flat - flat.mean())


class PrintIndex:
    """Known pictures; `finish` before the first `match`."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._prints: list[Print] = []
        self._near: Array = np.zeros(0, dtype=np.int64)
        self._bits: Array = np.zeros((0, 4), dtype=np.uint64)
        self._greys: Array = np.zeros((0, SIDE * (SIDE + 1)), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._prints)

    def add(self, image: bytes) -> int:
        """The number of a picture; the same pictures have the same.

        Raises:
            RefusedError: it cannot be read.
        """
        known = self._numbers.get(hashlib.sha256(image).digest())
        if known is not None:
            return known
        found = print_of(image)
        number = self._numbers.get(found.keys[1], len(self._prints))
        if number == len(self._prints):
            self._prints.append(found)
        self._numbers.update(dict.fromkeys(found.keys, number))
        return number

    def finish(self) -> None:
        """Put the fingerprints side by side; flat pictures are left out."""
        kept = [number for number, each in enumerate(self._prints) if not each.flat]
        if kept:
            self._near = np.array(kept)
            self._bits = np.stack([self._prints[number].bits for number in kept])
            self._greys = np.stack([self._prints[number].greys for number in kept])

    def match(self, pictures: Sequence[Print]) -> list[dict[int, str]]:
        """Of each picture the known ones that it is (`SAME`) or nearly is (`NEAR`)."""
        found = [
            {self._numbers[key]: SAME for key in each.keys if key in self._numbers}
            for each in pictures
        ]
        for start in range(0, len(pictures) if len(self._near) else 0, _BLOCK):
            mine = np.stack([each.bits for each in pictures[start : start + _BLOCK]])
            apart = np.bitwise_count(mine[:, None, :] ^ self._bits[None, :, :]).sum(axis=2)
            for i, column in zip(*np.nonzero(apart <= BITS), strict=True):
                picture, known = pictures[start + i], self._greys[column]
                off = np.abs(picture.greys - known).mean() / np.abs(known).mean()
                if not picture.flat and off <= GREY:
                    found[start + i].setdefault(int(self._near[column]), NEAR)
        return found
