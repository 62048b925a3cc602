"""Make hostile text fit for a page: responses, data files, labels."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any

from rilbench.printable import valid_text

NOTHING = "\u2013"
"""Shown for a missing value."""
MINUS = "\u2212"

# All controls but tab and line feed, and the marks that change the direction of text, end a line
# or are not seen at all.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Return text with its control characters made visible, and without lone surrogates.

    Line feeds and tabs stay. A lone surrogate, which no file can hold, becomes "?".
    """
    text = valid_text(text).replace("\r\n", "\n")

    def visible(match: re.Match[str]) -> str:
        code = ord(match[0])
        if code < 0x20:
            return chr(0x2400 + code)  # Unicode's pictures of control characters.
        return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"

    return _HIDDEN.sub(visible, text)


def label(text: str) -> str:
    """Return a name, cleaned and on one line."""
    return " ".join(clean(text).split())


def script_json(value: Any) -> str:
    """Return JSON for a script element: no text in it can end the element.

    ``<``, ``>`` and ``&`` are written as escapes, which JSON reads as the same characters.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def packed(value: Any) -> str:
    """Return compressed JSON in base64, a third of the size of the text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Without a time stamp: the same content gives the same page.
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 6, mtime=0)).decode("ascii")
