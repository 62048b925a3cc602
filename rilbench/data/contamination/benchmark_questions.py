"""The benchmarks' questions out of VLMEvalKit's files, a few rows in memory at a time."""

from __future__ import annotations

import ast
import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.suite import Dataset

_ROWS = 32
_COLUMNS = ("index", "image", "question", "split")
_TURN = 1_000_000
"""A rotation of a circular question has the index of the question and a multiple of this."""
_SHORTEST = 65
"""A shorter text in place of a picture is the index of a row that has it."""


@dataclass(frozen=True)
class Asked:
    """One row of a benchmark's file that is asked."""

    index: str
    """Of the question: all rotations of a circular one have the same."""
    question: str
    images: tuple[bytes, ...]
    like: str | None = None
    """The index of the row that has its pictures, where it has none of its own."""
    unreadable: bool = False
    """A picture of it is no base64, or it has none."""


def read_benchmark(path: Path, dataset: Dataset) -> Iterator[Asked]:
    """The rows of a dataset's split.

    Raises:
        UserError: the file cannot be read, or has no column of indices.
    """
    import pandas as pd

    try:
        chunks = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            keep_default_na=False,
            usecols=lambda name: name in _COLUMNS,
            chunksize=_ROWS,
        )
        with chunks as parts:
            for part in parts:
                if "index" not in part:
                    raise UserError(f"{path} has no column 'index'; is it VLMEvalKit's file?")
                for row in part.to_dict("records"):
                    if dataset.split is None or row.get("split", dataset.split) == dataset.split:
                        yield _asked(row, dataset)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}); download it again") from error


def _asked(row: dict[Any, Any], dataset: Dataset) -> Asked:
    index, question = _one(row["index"], dataset), row.get("question", "")
    image = row.get("image", "").strip()
    if image and len(image) < _SHORTEST:
        return Asked(index, question, (), _one(image, dataset))
    try:
        several = ast.literal_eval(image) if image.startswith("[") else [image]
        images = tuple(base64.b64decode(each, validate=True) for each in several if each)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, binascii.Error):
        images = ()
    return Asked(index, question, images, unreadable=not images)


def _one(index: str, dataset: Dataset) -> str:
    """The question of a row."""
    if dataset.circular and index.isascii() and index.isdecimal():
        return str(int(index) % _TURN)
    return index
