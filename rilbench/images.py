"""What is seen of a question's images: by every model alike, or why one cannot be read."""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

from rilbench.errors import InvalidQuestionError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""Accepted formats. Pillow knows more, and some of them start other programs."""

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for a damaged or malicious file."""


MOST_PIXELS = 16_384 * 28 * 28
"""A larger image is scaled down: the limit of Qwen2.5-VL's own processor. Lower limits are left to
the students' processors, so that students can share a teacher's responses."""

_PLAIN = {"JPEG": ("RGB", "L"), "MPO": ("RGB", "L"), "PNG": ("RGB", "L"), "WEBP": ("RGB",)}
"""By format, the modes that every reader decodes alike. MPO: JPEGs of a camera with two lenses."""
_ORIENTATION = 0x0112
"""Of the Exif tags; 1 is upright."""
_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def as_seen(image: bytes) -> bytes:
    """Return an image that every reader decodes alike: JPEG, PNG or WebP, upright, RGB on white.

    Readers differ otherwise: teachers' servers turn a phone's photograph upright and put a
    transparent drawing on black; verl leaves it lying and puts it on white; 16 bits a pixel are
    white for both. Of an animation the first picture is seen. What every reader decodes alike is
    returned as it is. The result depends on nothing but the image.

    Raises:
        InvalidQuestionError: as `check_image`.
    """
    with _opened(image) as picture:
        is_still = picture.format == "MPO" or not getattr(picture, "is_animated", False)
        if (
            picture.mode in _PLAIN.get(picture.format or "", ())
            and is_still
            and not picture.has_transparency_data
            and picture.width * picture.height <= MOST_PIXELS
            and picture.getexif().get(_ORIENTATION, 1) == 1
        ):
            return image
        stream = io.BytesIO()
        if picture.format in ("JPEG", "MPO"):  # as PNG a photograph takes ten times the place
            _seen(picture).save(stream, "JPEG", quality=95, subsampling=0)
        else:
            _seen(picture).save(stream, "PNG", compress_level=1)
        return stream.getvalue()


def as_seen_if_readable(image: bytes) -> bytes:
    """Return `as_seen`, or the image as it is if it cannot be read: that is not found out here."""
    try:
        return as_seen(image)
    except InvalidQuestionError:
        return image


def open_image(image: bytes) -> Image.Image:
    """Return what `as_seen` shows, decoded to RGB; raises as `as_seen` does."""
    with _opened(as_seen(image)) as picture:
        return picture.convert("RGB")


def _seen(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _SIXTEEN_BITS:
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    if (pixels := picture.width * picture.height) > MOST_PIXELS:
        scale = math.sqrt(MOST_PIXELS / pixels)
        sides = [max(1, math.floor(side * scale)) for side in picture.size]
        picture = picture.resize(sides, Image.Resampling.LANCZOS)
    return picture


def check_image(image: bytes) -> tuple[int, int]:
    """Read an image to its end; return its width and height.

    Raises:
        InvalidQuestionError: it is not in one of `FORMATS`, damaged, or too large for Pillow.
    """
    with _opened(image) as picture:
        size: tuple[int, int] = picture.size
        picture.draft("L", (64, 64))  # JPEG: decodes an eighth of the size, but reads all bytes
        picture.load()
        return size


@contextmanager
def _opened(image: bytes) -> Iterator[Image.Image]:
    with _errors(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        if picture.mode == "F":
            raise ValueError("its pixels are floating-point numbers, convert it to 8 bits")
        yield picture


@contextmanager
def _errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata, and sizes below Pillow's limit
            yield
    except UnidentifiedImageError as error:
        raise InvalidQuestionError(
            f"an image is not in one of the formats {', '.join(FORMATS)}; get it again"
        ) from error
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise InvalidQuestionError(f"an image cannot be read ({reason}); get it again") from error
