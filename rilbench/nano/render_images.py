"""Pictures made of square cells: scanned digits, boxes, bars, arrows, coloured shapes, words.

Each cell is 28 × 28 pixels, one merged patch of Qwen2.5-VL's vision tower. What a cell shows is
named by its *glyph*; a picture shows nothing but its glyphs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rilbench.nano.digits import Pool, scans

if TYPE_CHECKING:
    from collections.abc import Mapping

CELL = 28
"""Side of a cell in pixels."""

DIGITS = tuple("0123456789")
BOXED = tuple(f"boxed {d}" for d in DIGITS)
SHADED = tuple(f"shaded {d}" for d in DIGITS)
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 50, 50),
    "green": (50, 200, 70),
    "blue": (70, 100, 250),
    "yellow": (240, 220, 50),
}
SHAPES = ("circle", "square", "triangle")
COLOURED = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
ARROWS = ("up", "down", "left", "right")
WORDS = ("max", "min")
BAR, LEGEND = "bar", "legend"
GLYPHS = (*DIGITS, *BOXED, *SHADED, *COLOURED, *ARROWS, *WORDS, BAR, LEGEND)
"""Everything that a cell can show."""

Rng = np.random.Generator
Canvas = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """One or two images and what their cells show, row by row and image by image.

    Attributes:
        sizes: (rows, columns) of each image in cells.
        scans: the digits' indices into `rilbench.nano.digits.scans`.
    """

    images: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    glyphs: tuple[str, ...]
    scans: tuple[int, ...]

    @property
    def digits(self) -> tuple[int, ...]:
        """The digits among the glyphs, in their order."""
        return tuple(int(g[-1]) for g in self.glyphs if g[-1] in DIGITS)


class _Painter:
    """Paints glyphs and records the scans that it used."""

    def __init__(self, pool: Pool, rng: Rng) -> None:
        self.pool, self.rng = pool, rng
        self.used: list[int] = []

    def image(self, glyphs: Sequence[str], columns: int) -> bytes:
        """Paint cells row by row and return the image as JPEG."""
        cells = [self._cell(glyph) for glyph in glyphs]
        rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        grid = np.vstack(rows)
        grid = grid + self.rng.normal(0, 0.04, (*grid.shape[:2], 1))
        pixels = (np.clip(grid, 0, 1) * 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def _cell(self, glyph: str) -> Canvas:
        if glyph[-1] in DIGITS:
            return self._digit(glyph)
        image = Image.new("RGB", (CELL, CELL))
        draw = ImageDraw.Draw(image)
        if glyph in COLOURED:
            self._shape(draw, glyph)
        elif glyph in ARROWS:
            self._arrow(draw, glyph)
        elif glyph in WORDS:
            draw.text((1, 6), glyph, fill="white", font=ImageFont.load_default(size=13))
        elif glyph == LEGEND:
            draw.text((2, 8), "A=0..", fill="white", font=ImageFont.load_default(size=9))
        return np.asarray(image, dtype=np.float64) / 255

    def _digit(self, glyph: str) -> Canvas:
        """One scan of the pool, three times enlarged, at a random offset in its cell."""
        images, labels = scans()
        fitting = self.pool.index[labels[self.pool.index] == int(glyph[-1])]
        scan = int(self.rng.choice(fitting))
        self.used.append(scan)
        cell = np.zeros((CELL, CELL))
        if glyph in SHADED:
            cell += 0.35
        if glyph in BOXED or glyph in SHADED:
            cell[[0, -1], :] = cell[:, [0, -1]] = 0.8
        top, left = self.rng.integers(0, CELL - 24, size=2)
        part = cell[top : top + 24, left : left + 24]
        np.maximum(part, np.kron(images[scan], np.ones((3, 3))), out=part)
        return np.repeat(cell[:, :, None], 3, axis=2)

    def _shape(self, draw: ImageDraw.ImageDraw, glyph: str) -> None:
        colour, shape = glyph.split()
        side = int(self.rng.integers(14, 21))
        x, y = (int(v) for v in self.rng.integers(2, CELL - side - 1, size=2))
        box = (x, y, x + side, y + side)
        if shape == "circle":
            draw.ellipse(box, fill=COLOURS[colour])
        elif shape == "square":
            draw.rectangle(box, fill=COLOURS[colour])
        else:
            corners = [(x, y + side), (x + side, y + side), (x + side // 2, y)]
            draw.polygon(corners, fill=COLOURS[colour])

    @staticmethod
    def _arrow(draw: ImageDraw.ImageDraw, glyph: str) -> None:
        """An arrow across the cell."""
        turn = {"up": 1, "left": 2, "down": 3, "right": 0}[glyph]

        def at(x: float, y: float) -> tuple[float, float]:
            for _ in range(turn):
                x, y = y, CELL - 1 - x
            return x, y

        draw.line([at(4, 13.5), at(20, 13.5)], fill="white", width=3)
        draw.polygon([at(15, 6), at(15, 21), at(25, 13.5)], fill="white")


def _digits(number: int, rng: Rng, kind: Sequence[str] = DIGITS) -> list[str]:
    return [kind[int(i)] for i in rng.integers(10, size=number)]


def _painted(pool: Pool, rng: Rng, *images: tuple[int, Sequence[str]]) -> Picture:
    """Paint images given as (columns, glyphs)."""
    painter = _Painter(pool, rng)
    painted = tuple(painter.image(glyphs, columns) for columns, glyphs in images)
    sizes = tuple((len(glyphs) // columns, columns) for columns, glyphs in images)
    shown = tuple(glyph for _, glyphs in images for glyph in glyphs)
    return Picture(painted, sizes, shown, tuple(painter.used))


def grid(pool: Pool, rng: Rng) -> Picture:
    """Four digits in two rows."""
    return _painted(pool, rng, (2, _digits(4, rng)))


def diagram(pool: Pool, rng: Rng) -> Picture:
    """Four digits in boxes, one of them shaded."""
    glyphs = _digits(4, rng, BOXED)
    k = int(rng.integers(4))
    glyphs[k] = glyphs[k].replace("boxed", "shaded")
    return _painted(pool, rng, (2, glyphs))


def chart(pool: Pool, rng: Rng) -> Picture:
    """Two bars, each under its value of two digits; the heights follow the values."""
    labels = _digits(4, rng)
    picture = _painted(pool, rng, (4, [*labels, *[BAR] * 4]))
    image = Image.open(io.BytesIO(picture.images[0]))
    draw = ImageDraw.Draw(image)
    for k, colour in enumerate(("blue", "yellow")):
        height = 3 + round(22 * int(labels[2 * k] + labels[2 * k + 1]) / 99)
        left = 2 * k * CELL + 8
        draw.rectangle((left, 2 * CELL - 2 - height, left + 39, 2 * CELL - 2), fill=COLOURS[colour])
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return Picture((buffer.getvalue(),), picture.sizes, picture.glyphs, picture.scans)


def pair(pool: Pool, rng: Rng) -> Picture:
    """Two images of two digits each; left digits differ, and right digits do."""
    a, b = (str(d) for d in rng.choice(10, size=2, replace=False))
    c, d = (str(d) for d in rng.choice(10, size=2, replace=False))
    return _painted(pool, rng, (2, [a, c]), (2, [b, d]))


def scene(pool: Pool, rng: Rng) -> Picture:
    """Four coloured shapes in two rows."""
    glyphs = [COLOURED[int(i)] for i in rng.integers(len(COLOURED), size=4)]
    return _painted(pool, rng, (2, glyphs))


def route(pool: Pool, rng: Rng) -> Picture:
    """A map: an arrow that points to one of three digits."""
    k = int(rng.integers(4))
    glyphs = _digits(4, rng)
    sideways = "right" if k % 2 == 0 else "left"
    upright = "down" if k < 2 else "up"
    glyphs[k] = sideways if rng.random() < 0.5 else upright
    return _painted(pool, rng, (2, glyphs))


def task(pool: Pool, rng: Rng) -> Picture:
    """A question in the picture: a word and three digits, and below what the letters mean."""
    word = WORDS[int(rng.integers(len(WORDS)))]
    return _painted(pool, rng, (2, [word, *_digits(3, rng), LEGEND, LEGEND]))


Draw = Callable[[Pool, Rng], Picture]


def misread(glyphs: Sequence[str], rng: Rng) -> tuple[str, ...]:
    """Return the glyphs with one digit or shape read wrongly: a small teacher's typical error."""
    kinds = (DIGITS, BOXED, SHADED, COLOURED)
    read = list(glyphs)
    places = [i for i, glyph in enumerate(read) if any(glyph in kind for kind in kinds)]
    k = places[int(rng.integers(len(places)))]
    kind = next(kind for kind in kinds if read[k] in kind)
    others = [glyph for glyph in kind if glyph != read[k]]
    read[k] = others[int(rng.integers(len(others)))]
    return tuple(read)
