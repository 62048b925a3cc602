"""Text from outside (responses, labels, ids, names, settings, the ends of logs) for a reader."""

from __future__ import annotations

import json
from typing import Any


def valid_text(text: str) -> str:
    """Return text that every file and database takes.

    Half a surrogate pair becomes "?": it is legal in JSON, and in the name of a file it is a byte
    that is no UTF-8.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """Return text without escape sequences and marks that change its direction.

    Every text that rilbench did not write goes through it before a terminal, a table or a file.

    Args:
        text: a label, a response, …
        keep_lines: keep line feeds, too.
    """
    kept = "\n" if keep_lines else ""
    return "".join(mark if mark.isprintable() or mark in kept else " " for mark in text)


def printable_json(value: Any) -> str:
    """Return indented JSON whose texts are as they are, but safe to look at in a terminal.

    What `printable` drops is written as JSON's own escape, which a reader of JSON turns back.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2, default=str, allow_nan=False)
    return "".join(
        mark if mark.isprintable() or mark == "\n" else json.dumps(mark)[1:-1] for mark in text
    )


def no_formula(text: str, *, keep_lines: bool = False) -> str:
    """Return a printable cell of a CSV file that no spreadsheet takes for a formula."""
    text = printable(text, keep_lines=keep_lines)
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") else text
