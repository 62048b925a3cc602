"""Where a ledger is: whether it can be written there, and errors of the place in plain words."""

from __future__ import annotations

import warnings
from pathlib import Path

from rilbench.errors import UserError, UserNotice
from rilbench.paths import may_write

_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs", "beegfs", "ceph", "afs")
"""File systems on which SQLite's locks and write-ahead log are not reliable."""


def explain(message: str, repair: str) -> str:
    """Return an SQLite message in plain words, with the remedy; ``repair`` is that for damage."""
    if "readonly" in message:
        return "is read-only; make it writable or give another --db"
    if "malformed" in message or "Could not decode" in message:
        # What could not be decoded is not repeated: the message would print the bytes.
        why = "database disk image is malformed" if "malformed" in message else "garbled text"
        return f"is damaged ({why}); {repair}"
    if "not a database" in message:
        return f"is not an SQLite database ({message}); give another --db"
    if "locked" in message:
        return "is held by another program; wait for it to finish and try again"
    if "unable to open" in message:
        return "cannot be opened; make its folder writable or give another --db"
    if "full" in message:
        return "cannot grow, the disk is full; make room and try again"
    return f"cannot be used ({message}); give another --db"


def require_writable(path: Path) -> None:
    """Raise a UserError (without the path) if the ledger cannot be written there."""
    if not path.parent.is_dir():
        raise UserError("is in a folder that does not exist; make the folder or give another --db")
    if path.is_dir():
        raise UserError("is a folder; give a file")
    if path.exists() and not may_write(path):
        raise UserError("is read-only; make it writable or give another --db")
    if not may_write(path.parent):
        raise UserError("is in a read-only folder; make it writable or give another --db")


def warn_of_network(path: Path) -> None:
    """Warn if several machines may share the file: SQLite's locks hold on one machine only."""
    kind = file_system(path)
    if kind.startswith(_NETWORK):
        warnings.warn(
            f"{path} is on a network file system ({kind}): use it from one machine at a time, "
            "or give a --db on a local disk",
            UserNotice,
            stacklevel=3,
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds a path, such as "ext4"; "" if unknown."""
    import psutil

    target = path.absolute().resolve()
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    folders = map(str, (target, *target.parents))
    return next((mounts[folder] for folder in folders if folder in mounts), "")
