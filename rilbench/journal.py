"""JSON lines that survive a kill: appended to, written through, never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, none where there is no file; a torn last line is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # Of a process that was killed while writing it.
        os.truncate(path, whole)
    return [json.loads(line) for line in content[:whole].splitlines()]


def append_journal(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write lines through to the disk at once. The folder must exist."""
    # ASCII: no character of a text can look like a line's end.
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("ab") as file:
        file.write(text.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())
