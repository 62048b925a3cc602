"""How large a picture may be when the model is shown it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rilbench.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Pixels:
    """Fewest and most pixels of a picture; None where the model's own processor decides.

    A picture outside of them is scaled, its sides in proportion, before it is sent. What the
    model's processor then does with it is a matter of the checkpoint.
    """

    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        least = 1 if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        if least < 1 or most < least:
            raise UserError(f"pictures of {least} to {most} pixels do not exist; give other limits")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size that a picture gets, in pixels."""
        wanted = width * height
        if self.least is not None:
            wanted = max(wanted, self.least)
        if self.most is not None:
            wanted = min(wanted, self.most)
        if wanted == width * height:
            return width, height
        scale = math.sqrt(wanted / (width * height))
        # Up for the fewest, down for the most: the limits hold whatever the rounding.
        if scale > 1:
            return math.ceil(width * scale), math.ceil(height * scale)
        short = max(1, math.floor(min(width, height) * scale))
        long = min(math.floor(max(width, height) * scale), wanted // short)
        return (short, long) if width < height else (long, short)

    def scaled(self, picture: Image) -> Image:
        """The picture within the limits."""
        size = self.size(*picture.size)
        return picture if size == picture.size else picture.resize(size)

    def fit(self, file: Path) -> Path | bytes:
        """The file as it is, or a PNG within the limits."""
        if self == AS_IS:
            return file
        from PIL import Image

        with Image.open(file) as picture:
            if self.size(*picture.size) == picture.size:
                return file
            stream = io.BytesIO()
            self.scaled(picture.convert("RGB")).save(stream, "PNG")
        return stream.getvalue()


AS_IS = Pixels()
"""No limits of ours."""
