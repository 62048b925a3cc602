"""Read the benchmarks' questions from VLMEvalKit's files, a few rows in memory at a time."""

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

_BATCH = 32
_COLUMNS = ("index", "image", "question", "split")
_ROTATION = 1_000_000
"""A rotation of a circular question has the question's index plus a multiple of this."""
_SHORTEST_IMAGE = 65
"""A shorter text in an image's place is the index of the row that has the image."""


@dataclass(frozen=True)
class BenchmarkRow:
    """One row of a benchmark's file."""

    index: str
    """Index of the question, the same for all rotations of a circular one."""
    question: str
    images: tuple[bytes, ...]
    same_images_as: str | None = None
    """Index of the question that has this row's images."""
    unreadable: bool = False
    """It has no image, or one that is not base64."""


def read_benchmark(path: Path, dataset: Dataset) -> Iterator[BenchmarkRow]:
    """Yield the rows of a dataset's split.

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
            chunksize=_BATCH,
        )
        with chunks as parts:
            for part in parts:
                if "index" not in part:
                    raise UserError(f"{path} has no column 'index'; is it VLMEvalKit's file?")
                for row in part.to_dict("records"):
                    if dataset.split is None or row.get("split", dataset.split) == dataset.split:
                        yield _parse_row(row, dataset)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read ({reason}); download it again") from error


def _parse_row(row: dict[Any, Any], dataset: Dataset) -> BenchmarkRow:
    index, question = _question_index(row["index"], dataset), row.get("question", "")
    image = row.get("image", "").strip()
    if image and len(image) < _SHORTEST_IMAGE:
        return BenchmarkRow(index, question, (), _question_index(image, dataset))
    try:
        encoded = ast.literal_eval(image) if image.startswith("[") else [image]
        images = tuple(base64.b64decode(text, validate=True) for text in encoded if text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, binascii.Error):
        images = ()
    return BenchmarkRow(index, question, images, unreadable=not images)


def _question_index(index: str, dataset: Dataset) -> str:
    if dataset.circular and index.isascii() and index.isdecimal():
        return str(int(index) % _ROTATION)
    return index
