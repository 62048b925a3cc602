"""Which of many known images an image is, or nearly is: resized, or saved again.

The same image has the same file or the same pixels. A near one has a similar perceptual hash, 256
bits that say where the image, reduced to 17 × 16 greys, gets brighter from left to right (dHash),
and similar greys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rilbench.data.contamination.ngram_match import NEAR, SAME
from rilbench.images import open_image

SIDE = 16
BITS = 24
"""Bits of 256 that may differ in a near image."""
GREY = 0.15
"""Mean difference of the greys of a near image, as a share of their mean deviation."""
FLAT = 4.0
"""Standard deviation of the greys below which an image shows too little to be near another."""
_BLOCK = 32
"""Images that are compared with all known ones at a time."""
_MARGIN = 2
"""Greys that count as brighter; saving an even surface again changes it by less."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ImageHash:
    """The hashes of an image."""

    keys: tuple[bytes, bytes]
    """SHA-256 of the file and of the pixels."""
    bits: Array
    """(4,) uint64."""
    greys: Array
    """(16 · 17,) float32 with mean 0."""

    @property
    def flat(self) -> bool:
        """Whether the image shows too little to be compared."""
        return float(self.greys.std()) < FLAT


def hash_image(image: bytes) -> ImageHash:
    """Return the hashes of an encoded image.

    Raises:
        InvalidQuestionError: it cannot be read.
    """
    picture = open_image(image)
    pixels = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    small = picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    greys = np.asarray(small, dtype=np.int16)
    bits = np.packbits(np.diff(greys, axis=1) > _MARGIN).view(np.uint64)
    flat = greys.astype(np.float32).reshape(-1)
    return ImageHash((hashlib.sha256(image).digest(), pixels), bits, flat - flat.mean())


class ImageIndex:
    """Known images. Call `finish` before the first `match`."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._hashes: list[ImageHash] = []
        self._comparable: Array = np.zeros(0, dtype=np.int64)
        """Numbers of the images that are not flat; the rows of the next two."""
        self._bits: Array = np.zeros((0, 4), dtype=np.uint64)
        self._greys: Array = np.zeros((0, SIDE * (SIDE + 1)), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, image: bytes) -> int:
        """Return the number of an image; the same images have the same number.

        Raises:
            InvalidQuestionError: it cannot be read.
        """
        known = self._numbers.get(hashlib.sha256(image).digest())
        if known is not None:
            return known
        hashes = hash_image(image)
        number = self._numbers.get(hashes.keys[1], len(self._hashes))
        if number == len(self._hashes):
            self._hashes.append(hashes)
        self._numbers.update(dict.fromkeys(hashes.keys, number))
        return number

    def finish(self) -> None:
        """Stack the hashes of all images that are not flat."""
        kept = [number for number, hashes in enumerate(self._hashes) if not hashes.flat]
        if kept:
            self._comparable = np.array(kept)
            self._bits = np.stack([self._hashes[number].bits for number in kept])
            self._greys = np.stack([self._hashes[number].greys for number in kept])

    def match(self, images: Sequence[ImageHash]) -> list[dict[int, str]]:
        """Return the known images that each image is (`SAME`) or nearly is (`NEAR`), by number."""
        matches = [
            {self._numbers[key]: SAME for key in image.keys if key in self._numbers}
            for image in images
        ]
        for start in range(0, len(images) if len(self._comparable) else 0, _BLOCK):
            bits = np.stack([image.bits for image in images[start : start + _BLOCK]])
            distance = np.bitwise_count(bits[:, None, :] ^ self._bits[None, :, :]).sum(axis=2)
            for i, column in zip(*np.nonzero(distance <= BITS), strict=True):
                image, known = images[start + i], self._greys[column]
                difference = np.abs(image.greys - known).mean() / np.abs(known).mean()
                if not image.flat and difference <= GREY:
                    matches[start + i].setdefault(int(self._comparable[column]), NEAR)
        return matches
