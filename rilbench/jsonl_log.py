"""JSON lines that survive a kill and a full disk: appended to, written through, never rewritten."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rilbench.errors import UserError


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, none where there is no file.

    A last line without its end is left out: another process is writing it, or was killed at it.
    The file stays as it is.

    Raises:
        UserError: a line before it is none of a journal.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
    return [_row(path, number, line) for number, line in enumerate(lines, 1)]


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:  # Of JSON or of UTF-8.
        row = None
    if not isinstance(row, dict):
        raise UserError(
            f"line {number} of {path} is damaged; remove it (what it held is asked again), "
            "then run again"
        )
    return row


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write lines through to the disk at once, all or none. The folder must exist.

    Raises:
        UserError: the file cannot be written, as on a full disk; it is as it was before.
    """
    # ASCII: no character of a text can look like a line's end.
    text = "".join(json.dumps(row) + "\n" for row in rows).encode("ascii")
    try:
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Two evaluations may share a judge's replies.
            _cut_torn_line(file)
            _write_through(file, text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); make room or see to its rights, "
            "then run again"
        ) from error


def _cut_torn_line(file: io.FileIO) -> None:
    """Cut off what a killed process left of a line; under the lock nobody is writing it."""
    size = file.seek(0, os.SEEK_END)
    if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
        file.truncate(os.pread(file.fileno(), size, 0).rfind(b"\n") + 1)


def _write_through(file: io.FileIO, text: bytes) -> None:
    start = file.seek(0, os.SEEK_END)
    try:
        while text:
            text = text[file.write(text) :]  # Short where the disk is nearly full.
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(start)
        raise
