"""Temporary files: a folder for each process, the user's own, short, and removed at its end.

Shared machines have one temporary folder for everybody, and what programs leave there stays. And a
socket's path has 107 characters at most, of which Ray needs 65 and vLLM 37, while a batch system's
``TMPDIR`` may have a hundred. So every process that we start gets a folder here as its ``TMPDIR``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rilbench.errors import UserError

LONGEST = 42
"""Characters of the longest folder in which Ray's sockets have short enough paths."""

_OWN = len("/4194304-abcdefgh")
_LOCK = ".lock"


def user_folder() -> Path:
    """Return the folder of this user's temporary files, made if it does not exist.

    Raises:
        UserError: no temporary folder is short enough and can be written to.
    """
    places = dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"))
    for place in places:
        folder = Path(place) / f"rilbench-{os.getuid()}"
        if len(str(folder)) + _OWN <= LONGEST and _is_ours(folder):
            return folder
    raise UserError(
        f"no temporary folder can be used ({', '.join(places)}); set TMPDIR to a folder that you "
        f"can write to, with at most {LONGEST - _OWN - len(folder.name) - 1} characters"
    )


def _is_ours(folder: Path) -> bool:
    """Make a folder; False if it cannot be made, or if it is another user's or a link."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return ours and os.access(folder, os.W_OK | os.X_OK)


class Scratch:
    """A temporary folder of one process.

    What processes left that were killed is removed first: they hold no lock any more.

    Args:
        root: the folder in which it is made, for such folders alone; by default the user's.
    """

    def __init__(self, root: Path | None = None) -> None:
        root = root or user_folder()
        with _locked(root / ".clean"):
            for folder in root.glob("[0-9]*-*"):
                if folder.is_dir() and not is_locked(folder / _LOCK):
                    shutil.rmtree(folder, ignore_errors=True)
            self.path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
            self._lock = (self.path / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def is_locked(file: Path) -> bool:
    """Whether a process on this machine holds a lock on a file; False if it does not exist."""
    with suppress(FileNotFoundError), file.open("r+") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
