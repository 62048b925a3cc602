"""Hostile text: what a model, a data file or a label says, made fit for a page."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

NOTHING = "\u2013"
"""Stands where there is no value."""
MINUS = "\u2212"

# All controls but tab and line feed, and the marks that turn the direction of what follows.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Return text with its control characters made visible, and without lone surrogates.

    Line feeds and tabs stay. A lone surrogate, which no file can hold, becomes "?".
    """
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    return _HIDDEN.sub(lambda found: _visible(found[0]), text)


def label(text: str) -> str:
    """The same for a name: on one line."""
    return " ".join(clean(text).split())


def _visible(mark: str) -> str:
    code = ord(mark)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters.
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element.

    ``<``, ``>`` and ``&`` are written as escapes, which JSON reads as the same characters.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def packed(value: Any) -> str:
    """JSON, compressed, in base64: a third of the size, for what is too much to stand as text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Without a time stamp: the same content is the same page.
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")
