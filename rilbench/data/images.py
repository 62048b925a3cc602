"""A picture as it is in a file of questions: can it be read to its end?"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

from rilbench.data.question import RefusedError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read: Pillow has more, of which some start other programs."""

_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
)
"""What Pillow raises of a file that is damaged, or made to harm."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of odd metadata, and of size below Pillow's limit.
            yield
    except UnidentifiedImageError as error:
        raise RefusedError(f"a picture is none of {', '.join(FORMATS)}; get it again") from error
    except _BROKEN as error:
        why = " ".join(str(error).split())[:100] or type(error).__name__
        raise RefusedError(f"a picture cannot be read ({why}); get it again") from error


def open_picture(image: bytes) -> Image.Image:
    """The decoded picture, upright, in RGB.

    Raises:
        RefusedError: it is none of `FORMATS`, damaged, or larger than Pillow allows.
    """
    with _reading(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def check_picture(image: bytes) -> None:
    """Read a picture to its end, no finer than need be.

    Raises:
        RefusedError: as of `open_picture`.
    """
    with _reading(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        picture.draft("L", (64, 64))  # JPEG: an eighth of the size, but all of the file.
        picture.load()
