"""Which files of a folder are which kit's, and why the others are skipped."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Suite
from rilbench.importers import lmmseval, vlmevalkit
from rilbench.importers.types import FolderResults

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin")
_NEVER_RESULTS = (".log", ".lock", ".part", ".db", ".db-wal", ".db-shm")
"""Files that are skipped without a word."""


def files_below(folder: Path) -> list[Path]:
    """Return every file below a folder, except hidden ones; links to folders are not followed.

    Raises:
        UserError: it is not a folder, or cannot be read.
    """
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {state}; give the folder that a kit wrote its results to")

    def is_hidden(name: str) -> bool:
        return name.startswith(".") and not name.startswith("..")  # A model may be called "..".

    try:
        return [
            file
            for file in sorted(folder.rglob("*"))
            if not any(map(is_hidden, file.relative_to(folder).parts))
            and (file.is_file() or (file.is_symlink() and not file.exists()))
        ]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error}); give a folder that can") from error


def read_folder(
    files: Iterable[Path], suite: Suite, known: AbstractSet[Path] = frozenset()
) -> FolderResults:
    """Read both kits' results.

    Args:
        files: see `files_below`.
        suite: the benchmarks to look for.
        known: files of another kind, which are not reported as skipped.
    """
    results = FolderResults()
    candidates = []
    for file in files:
        if file.suffix.lower() in _PICKLES:
            results.skip(file, "can run code when it is read")
        elif not file.is_file():
            results.skip(file, "is a link to nothing")
        elif file not in known:
            candidates.append(file)
    read = vlmevalkit.read(candidates, suite.known_to(VLMEVALKIT), results)
    rest = [file for file in candidates if file not in read]
    read |= lmmseval.read(rest, suite.known_to(LMMSEVAL), results)
    for file in candidates:
        if file not in read and not file.name.endswith(_NEVER_RESULTS):
            results.skip(file, f"is no kit's result for a benchmark of the suite {suite.name}")
    results.skipped.sort(key=lambda skipped: skipped.file)
    return results
