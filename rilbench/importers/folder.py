"""What a folder holds: which files are which kit's, and why the others are left alone."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Suite
from rilbench.importers import lmmseval as lmmseval
from rilbench.importers import vlmevalkit as vlmevalkit
from rilbench.importers.types import Found

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin")
_QUIET = (".log", ".lock", ".part", ".db", ".db-wal", ".db-shm")
"""Files that lie beside results and that nobody takes for them."""


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder, but for hidden ones; links to folders are not followed.

    Raises:
        UserError: it is no folder, or cannot be read.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}; give the folder that a kit wrote its results to")
    try:
        found = [
            file
            for file in sorted(folder.rglob("*"))
            if not any(map(_is_hidden, file.relative_to(folder).parts))
            and (file.is_file() or (file.is_symlink() and not file.exists()))
        ]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error}); give a folder that can") from error
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and not name.startswith("..")  # A model may be called "..".


def read_folder(
    files: Iterable[Path], suite: Suite, known: AbstractSet[Path] = frozenset()
) -> Found:
    """Read both kits' results.

    Args:
        files: see `files_below`.
        suite: whose benchmarks are looked for.
        known: files that are something else, of which nothing need be said.
    """
    found = Found()
    there = []
    for file in files:
        if file.suffix.lower() in _PICKLES:
            found.skip(file, "can run code when it is read")
        elif not file.is_file():
            found.skip(file, "is a link to nothing")
        elif file not in known:
            there.append(file)
    read = vlmevalkit.read(there, suite.by(VLMEVALKIT), found)
    read |= lmmseval.read([file for file in there if file not in read], suite.by(LMMSEVAL), found)
    for file in there:
        if file not in read and not file.name.endswith(_QUIET):
            found.skip(file, f"is no kit's result for a benchmark of the suite {suite.name}")
    found.skipped.sort(key=lambda each: each.file)
    return found
