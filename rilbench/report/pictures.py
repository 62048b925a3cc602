"""Pictures for the page: scaled down to a budget, each stored once."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL import Image

PictureSource = Path | bytes
"""An image file, or its content."""

BUDGET = 12_000_000
"""Characters for all pictures together."""

_LARGEST, _SMALLEST = 768, 160
"""Longest edge in pixels after scaling, with ample room and with little."""
_PER_PIXEL = 0.08
"""Characters for a pixel of a photograph at `_QUALITY`, about."""
_QUALITY = 60
_LEAST_ROOM = 3000
"""Bytes that every picture may have without loss of quality, however many there are."""
_EXACT = 2000
"""Bytes up to which a small picture is kept without loss."""
_SMALL = 128 * 128
"""Pixels up to which a picture gets a better quality."""

LEFT_OUT = "left out: the page's pictures have used up their room"
UNREADABLE = "the picture cannot be read"


@dataclass
class Pictures:
    """The page's pictures.

    Args:
        expected: about how many there will be; decides the scale.
        budget: characters for all of them together.
    """

    expected: int
    budget: int = BUDGET
    urls: list[str] = field(default_factory=list)
    """``data:`` addresses, by number."""
    used: int = 0
    full: bool = False
    """One did not fit: no other is tried."""
    _by_content: dict[str, int | str] = field(default_factory=dict)
    _by_path: dict[Path, int | str] = field(default_factory=dict)

    @property
    def edge(self) -> int:
        """The longest edge in pixels that leaves room for the expected number."""
        pixels = self.budget / max(self.expected, 1) / _PER_PIXEL
        return min(_LARGEST, max(_SMALLEST, int(math.sqrt(pixels))))

    def add(self, source: PictureSource) -> int | str:
        """Return the number of a picture, or why it is not on the page."""
        if isinstance(source, Path):
            if source not in self._by_path:
                try:
                    self._by_path[source] = self._add_content(source.read_bytes())
                except OSError:
                    self._by_path[source] = UNREADABLE
            return self._by_path[source]
        return self._add_content(source)

    def _add_content(self, content: bytes) -> int | str:
        name = hashlib.sha256(content).hexdigest()
        if name not in self._by_content:
            if self.full:
                return LEFT_OUT
            self._by_content[name] = self._encode(content)
        return self._by_content[name]

    def _encode(self, content: bytes) -> int | str:
        small = scaled(content, self.edge, self.budget // max(self.expected, 1))
        if small is None:
            return UNREADABLE
        url = f"data:image/webp;base64,{base64.b64encode(small).decode('ascii')}"
        if self.used + len(url) > self.budget:
            self.full = True
            return LEFT_OUT
        self.urls.append(url)
        self.used += len(url)
        return len(self.urls) - 1


def scaled(content: bytes, edge: int, room: int = _LEAST_ROOM) -> bytes | None:
    """Return a picture as WebP; None if it cannot be read.

    Only the pixels are kept: no location, no author.

    Args:
        content: an image file.
        edge: the longest edge in pixels.
        room: bytes beyond which the picture loses quality.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                opened.draft("RGB", (edge, edge))  # JPEG: decode at a fraction of the size.
                image = ImageOps.exif_transpose(opened)
                clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
                image = image.convert("RGBA" if clear else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None
    small = image.width * image.height <= _SMALL
    image.thumbnail((edge, edge))
    exact = _webp(image, lossless=True, method=0) if small else b""
    if exact and len(exact) <= _EXACT:
        return exact
    webp = _webp(image, quality=_QUALITY + 20 if small else _QUALITY)
    return webp if len(webp) <= max(room, _LEAST_ROOM) else _webp(image, quality=_QUALITY // 2)


def _webp(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", **{"method": 2, **options})
    return out.getvalue()


class PictureNumbers(Protocol):
    """Pictures that a page refers to by number."""

    def add(self, source: PictureSource) -> int | str:
        """Return the number of a picture, or why it is not on the page."""


def numbers(pictures: PictureNumbers, sources: Iterable[PictureSource]) -> Sequence[int | str]:
    """Apply `Pictures.add` to each source."""
    return [pictures.add(source) for source in sources]
