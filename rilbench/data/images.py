"""Decode the images of questions, and find broken ones."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

from rilbench.data.question import InvalidQuestionError

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


def open_image(image: bytes) -> Image.Image:
    """Return the decoded image as people see it: upright, in RGB, on white.

    Raises:
        InvalidQuestionError: it is not in one of `FORMATS`, damaged, or too large for Pillow.
    """
    with _errors(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        return _on_white(ImageOps.exif_transpose(picture)).convert("RGB")


def as_seen(image: bytes) -> bytes:
    """Return an image that every reader decodes alike: upright, and without transparency.

    Teachers' servers turn a phone's photograph upright and put a transparent drawing on black; verl
    leaves it lying and puts it on white. An image with neither is returned as it is, and so is one
    that cannot be read: that is not found out here.
    """
    try:
        with _errors(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
            if picture.getexif().get(_ORIENTATION, 1) == 1 and not picture.has_transparency_data:
                return image
            seen, stream = _on_white(ImageOps.exif_transpose(picture)), io.BytesIO()
            seen.convert("RGB").save(stream, "PNG", compress_level=1)
            return stream.getvalue()
    except InvalidQuestionError:
        return image


_ORIENTATION = 0x0112
"""Of the Exif tags; 1 is upright."""


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)


def check_image(image: bytes) -> tuple[int, int]:
    """Read an image to its end; return its width and height; raises as `open_image` does."""
    with _errors(), Image.open(io.BytesIO(image), formats=FORMATS) as picture:
        size: tuple[int, int] = picture.size
        picture.draft("L", (64, 64))  # JPEG: decodes an eighth of the size, but reads all bytes
        picture.load()
        return size


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
