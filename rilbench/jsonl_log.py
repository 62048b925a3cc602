"""JSON lines that survive a kill and a full disk: appended, synced to the disk, never rewritten."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

from rilbench.errors import UserError

Item = TypeVar("Item")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file, none where the file does not exist; raises as `iter_jsonl`."""
    return [row for _, row in iter_jsonl(path)]


def iter_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file, each with the byte at which its line starts.

    A last line without its line feed is left out: another process is writing it, or was killed
    while it did. The file is not changed.

    Raises:
        UserError: another line is not a JSON object.
    """
    if not path.exists():
        return
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:  # not JSON, or not UTF-8
                row = None
            if not isinstance(row, dict):
                raise UserError(
                    f"line {number} of {path} is damaged; remove it (what it held is asked again), "
                    "then run again"
                )
            yield start, row
            start += len(line)


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """Append objects and sync them to the disk, all or none. The folder must exist.

    Returns:
        The byte at which the line of each starts.

    Raises:
        UserError: the file cannot be written, as on a full disk; it is as it was before.
    """
    # ASCII: no character of a text can look like the end of a line.
    lines = [f"{json.dumps(row)}\n".encode("ascii") for row in rows]
    text = b"".join(lines)
    try:
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # Two evaluations may share a judge's replies.
            size = file.seek(0, os.SEEK_END)
            # Cut off what a killed process left of a line; under the lock nobody is writing it.
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                file.truncate(os.pread(file.fileno(), size, 0).rfind(b"\n") + 1)
            start: int = file.seek(0, os.SEEK_END)
            try:
                while text:
                    text = text[file.write(text) :]  # Short where the disk is nearly full.
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)
                raise
            return list(accumulate(map(len, lines[:-1]), initial=start))[: len(lines)]
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); make room or check its permissions, "
            "then run again"
        ) from error


class BatchedWriter(Generic[Item]):
    """Writes items from an event loop in a thread, all that came meanwhile at once.

    A sync takes milliseconds, on a network's disk tens of them, in which the loop would neither
    send nor receive. Use it as an async context manager: at its end all items are written.

    Args:
        write: writes several items, in order.
    """

    def __init__(self, write: Callable[[list[Item]], object]) -> None:
        self._write = write
        self._waiting: list[Item] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, item: Item) -> None:
        """Write an item soon; raises what ``write`` raised for an earlier one."""
        self._waiting.append(item)
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None
        if self._task is None:
            self._task = asyncio.create_task(self._write_waiting())

    async def __aenter__(self) -> BatchedWriter[Item]:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self._task is not None:
                await self._task
        finally:  # Ctrl-C while this waits ends the task.
            if self._waiting:
                self._write(self._waiting)

    async def _write_waiting(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write, some)
