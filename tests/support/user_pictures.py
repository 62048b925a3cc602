"""Pictures as users have them: of every kind, and some that cannot be read."""

import io
from typing import Any

from PIL import Image

BROKEN = {"cut", "text", "empty"}
"""Those that no program reads."""


def _file(picture: Image.Image, kind: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **more)
    return stream.getvalue()


def user_pictures() -> dict[str, bytes]:
    """Their files by name; all whole ones are red, 30 × 10 as one looks at them, unless named."""
    wide = Image.new("RGB", (30, 10), "red")
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "cmyk": _file(wide.convert("CMYK"), "JPEG"),
        "palette": _file(wide.convert("P"), "PNG"),
        "alpha": _file(wide.convert("RGBA"), "PNG"),
        "deep": _file(Image.new("I;16", (30, 10)), "PNG"),
        "turned": _file(wide, "JPEG", exif=turned),
        "dot": _file(Image.new("RGB", (1, 1)), "PNG"),
        "large": _file(Image.new("L", (8000, 8000)), "PNG"),
        "cut": _file(Image.effect_noise((64, 64), 50), "PNG")[:2000],
        "text": b"no picture at all" * 9,
        "empty": b"",
    }


def sizes_seen() -> dict[str, tuple[int, int]]:
    """The whole ones' sizes as one looks at them."""
    odd = {"turned": (10, 30), "dot": (1, 1), "large": (8000, 8000)}
    return {name: odd.get(name, (30, 10)) for name in user_pictures() if name not in BROKEN}
