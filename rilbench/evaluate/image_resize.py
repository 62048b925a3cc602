"""Size limits of the images that are sent to the model."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rilbench.errors import UserError
from rilbench.images import as_seen_if_readable

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Pixels:
    """Fewest and most pixels of an image; None where the model's own processor decides.

    An image outside of the limits is scaled in proportion before it is sent. The model's processor
    may then scale it once more.
    """

    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        least = 1 if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        if least < 1 or most < least:
            raise UserError(
                f"--min-pixels {least} must be at least 1 and not exceed --max-pixels {most}"
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image is scaled to, in pixels."""
        wanted = width * height
        if self.least is not None:
            wanted = max(wanted, self.least)
        if self.most is not None:
            wanted = min(wanted, self.most)
        if wanted == width * height:
            return width, height
        scale = math.sqrt(wanted / (width * height))
        # Rounded up to the lower limit and down to the upper one, so that both limits hold.
        if scale > 1:
            return math.ceil(width * scale), math.ceil(height * scale)
        short = max(1, math.floor(min(width, height) * scale))
        long = max(1, min(math.floor(max(width, height) * scale), wanted // short))
        return (short, long) if width < height else (long, short)

    def scaled(self, picture: Image) -> Image:
        """Return the image, scaled into the limits."""
        size = self.size(*picture.size)
        return picture if size == picture.size else picture.resize(size)

    def fit(self, file: Path) -> bytes:
        """Return the image as models see it, as a PNG within the limits if it is not yet."""
        from PIL import Image

        image = as_seen_if_readable(file.read_bytes())
        if self == AS_IS:
            return image
        with Image.open(io.BytesIO(image)) as picture:
            if self.size(*picture.size) == picture.size:
                return image
            stream = io.BytesIO()
            self.scaled(picture.convert("RGB")).save(stream, "PNG")
        return stream.getvalue()


AS_IS = Pixels()
"""No limits."""
