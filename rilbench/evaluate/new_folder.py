"""Folders that are made once and then read: whole or absent, whatever is killed or cut.

A folder is made in ``building/`` beside its place, and takes its place when it is complete. A list
of its files is kept in it, so that one that lost something is noticed and made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rilbench.scratch import Scratch

_LIST = "files.json"
"""File in a folder: the size in bytes of each other file, by its path there."""


def is_whole(folder: Path) -> bool:
    """Return whether a folder has every file with which it was completed, at its full size."""
    try:
        listed = json.loads((folder / _LIST).read_bytes())
        return bool(listed.items() <= dict(_sizes(folder)).items())
    except (OSError, ValueError, AttributeError):
        return False


class NewFolder:
    """A folder on its way to its place. Call `close` in the end, whether it is complete or not.

    What killed processes left on the way is removed first: they hold no lock any more.

    Attributes:
        path: where it is made.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        ways = place.parent / "building"
        ways.mkdir(parents=True, exist_ok=True)
        self._scratch = Scratch(ways)
        self.path = self._scratch.path / place.name
        self.path.mkdir()

    def complete(self, *, replace: bool = False) -> None:
        """Put it in its place, unless another process was quicker.

        Args:
            replace: also where a whole folder is there.
        """
        listed = json.dumps(dict(_sizes(self.path)))
        (self.path / _LIST).write_text(listed, encoding="utf-8")
        # Of the many pictures below, one that a power failure cuts does not have its size.
        for file in (*filter(Path.is_file, self.path.iterdir()), self.path):
            _sync(file)
        if not replace and is_whole(self._place):
            return
        if self._place.exists():
            self._place.rename(self._scratch.path / "old")
        with suppress(OSError):  # Another process was quicker just now.
            self.path.rename(self._place)
        _sync(self._place.parent)

    def close(self) -> None:
        """Remove what is not in its place."""
        self._scratch.close()


def _sizes(folder: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """Yield each file's path in the folder and its size."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _sizes(Path(entry.path), f"{below}{entry.name}/")
            else:
                yield f"{below}{entry.name}", entry.stat().st_size


def _sync(path: Path) -> None:
    """Write a file or folder through to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
