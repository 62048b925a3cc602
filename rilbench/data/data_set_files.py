"""The files of a data set, and their rows: Parquet, JSON, or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.data.json_stream import read_objects
from rilbench.data.jsonl import parse_object, read_lines
from rilbench.data.layouts import Columns, column_names
from rilbench.data.row_files import as_written
from rilbench.errors import InvalidQuestionError, UserError

_BATCH = 64
"""Rows of Parquet read at a time."""
_SPLITS = frozenset({"train", "training", "validation", "val", "valid", "dev", "test", "testmini"})
"""What the files of a split are called."""

Bad = InvalidQuestionError
Recognise = Callable[[tuple[str, ...]], Columns]
"""From the names of columns to their use; raises `Bad`."""


@dataclass(frozen=True)
class DataFile:
    """One file of a data set."""

    path: Path
    folder: Path
    """Where its paths of images start."""
    name: str
    """How it is called in messages and ids: its path in the data set."""
    source: str
    """The source of its rows without one: the file's name, the configuration's or the set's."""


def find_files(place: Path, split: str) -> list[DataFile]:
    """Return the files of a data set: one file, or those of a folder that belong to a split.

    A folder's Parquet files are taken, or its JSON files if there are none.

    Raises:
        UserError: there is none; the message lists the existing splits.
    """
    if place.is_file():
        return [DataFile(place, place.parent, place.name, place.stem)]
    if not place.exists():
        raise UserError(f"{place} does not exist; download the data set, and give its folder")
    parquet = sorted(place.rglob("*.parquet"))
    files = parquet or sorted(path for path in place.rglob("*") if path.suffix in _JSON)
    splits = {path: _splits(place, path) for path in files}
    chosen = [path for path in files if split in splits[path]]
    if not chosen and not any(found & _SPLITS for found in splits.values()):
        chosen = files
    if not chosen:
        usual = _SPLITS.intersection(set().union(*splits.values()))
        shown = ", ".join(sorted(usual)) or "no Parquet or JSON file"
        if files:
            remedy = "give another --split, or a file"
        elif any(place.rglob("*.arrow")):
            remedy = "save it with Dataset.to_parquet"
        else:
            remedy = "give the folder of a data set"
        raise UserError(f"{place} has no file of the split {split!r} ({shown}); {remedy}")
    return [
        DataFile(path, place, path.relative_to(place).as_posix(), _source(place, path, split))
        for path in chosen
    ]


_JSON = (".json", ".jsonl", ".ndjson")


def _split(path: Path) -> str:
    return re.split(r"[-_.]", path.stem)[0]


def _splits(place: Path, path: Path) -> set[str]:
    """What a file's split may be called: as its name or its folder's, or a usual name in its path.

    A usual name counts anywhere in its own name (``chartqa_test``), else as a folder's.
    """
    words = _SPLITS.intersection(re.split(r"[-_.]", path.stem))
    folders = _SPLITS.intersection(path.relative_to(place).parts)
    return {_split(path), path.parent.name} | (words or folders)


def _source(place: Path, path: Path, split: str) -> str:
    """The name of a file's configuration, else its own unless that is a split, else the set's."""
    above = path.relative_to(place).parts[:-1]
    if above and above[0] not in ("data", split):
        return above[0]
    return place.resolve().name if above or _split(path) in _SPLITS else path.stem


def read_rows(file: DataFile, recognise: Recognise) -> Iterator[tuple[int, Columns | Bad, Any]]:
    """Yield each row: its number from 1, the use of its columns or why there is none, its values.

    Raises:
        UserError: the file cannot be used, or the rest of it.
    """
    if file.path.suffix.lower() not in _JSON:
        yield from _parquet_rows(file.path, recognise)
        return
    is_lines = file.path.suffix.lower() != ".json" and not _is_array(file.path)
    read: Iterator[tuple[int, Any]] = read_lines(file.path) if is_lines else read_objects(file.path)
    for number, row in read:
        columns: Columns | Bad
        try:
            values = parse_object(row) if is_lines else row
            if not isinstance(values, dict):
                raise InvalidQuestionError("it is not an object; drop it")
            columns = recognise(tuple(column_names(values)))
        except InvalidQuestionError as error:
            columns, values = error, None
        yield number, columns, values


def count_rows(files: Sequence[DataFile]) -> int:
    """The rows of files; 0 where that is not known: of JSON, or of a file that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if any(file.path.suffix.lower() in _JSON for file in files):
        return 0
    try:
        return sum(pq.read_metadata(file.path).num_rows for file in files)
    except (pa.ArrowException, OSError):
        return 0


def _is_array(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError:
        return False  # the attempt to read it will give the reason


def _parquet_rows(path: Path, recognise: Recognise) -> Iterator[tuple[int, Columns, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = recognise(tuple(column_names(_nested(file.schema_arrow))))
            for batch in file.iter_batches(_BATCH, columns=columns.names):
                for row in as_written(batch).to_pylist():
                    number += 1
                    yield number, columns, row
    except Bad as error:
        raise UserError(f"{path}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        place = f" after row {number}" if number else ""
        remedy = "download it again"
        if path.suffix.lower() != ".parquet":
            remedy = "give Parquet, JSON or JSON lines, such as pandas' to_parquet makes of a CSV"
        raise UserError(f"{path} cannot be read as Parquet{place} ({error}); {remedy}") from error


def _nested(fields: Any) -> dict[str, Any]:
    """The names of an Arrow schema's or struct's fields, with those of structs in them."""
    import pyarrow as pa

    return {
        field.name: _nested(field.type) if pa.types.is_struct(field.type) else None
        for field in fields
    }
