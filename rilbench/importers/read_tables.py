"""Read a kit's tables (xlsx, csv, tsv or json) as rows of plain values."""

from __future__ import annotations

import codecs
import csv
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from rilbench.importers.read_json import parse_json
from rilbench.importers.types import UnreadableError, short

Row = dict[str, Any]

_SUFFIXES = (".xlsx", ".csv", ".tsv", ".json")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def is_table(file: Path) -> bool:
    """Return whether its name is that of a table."""
    return file.suffix.lower() in _SUFFIXES


def read_table(file: Path) -> list[Row]:
    """Return the rows of a table; an empty cell is None.

    Raises:
        UnreadableError: it is not a table, or cut short.
    """
    suffix = file.suffix.lower()
    try:
        if suffix == ".xlsx":
            rows = list(_workbook(file))
        elif suffix == ".json":
            rows = list(_records(parse_json(file.read_text(encoding="utf-8-sig"))))
        else:
            rows = list(_lines(file, "\t" if suffix == ".tsv" else ","))
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise UnreadableError(f"cannot be read ({short(error)})") from error
    if not rows:
        raise UnreadableError("has no row")
    return rows


def normalised(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with lower-case column names, except options ("A"), as the kit does."""
    return [
        {key if len(key) == 1 and key.isupper() else key.lower(): v for key, v in row.items()}
        for row in rows
    ]


def text(value: Any) -> str:
    """Return a cell as the text that the kit wrote; a whole number has no point."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def number(value: Any) -> float:
    """Return a cell as a number, NaN for an empty one; a spreadsheet may write a decimal comma.

    Raises:
        UnreadableError: it is neither.
    """
    if value is None or value == "":
        return float("nan")
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        value = value.replace(",", ".")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableError(f"has {str(value)[:40]!r} where a number should be") from error


def _workbook(file: Path) -> Iterator[Row]:
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    # Formulas as text: an answer that begins with "=" was written as a formula.
    try:
        book = load_workbook(file, read_only=True, data_only=False)
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ParseError, EOFError) as error:
        raise UnreadableError(f"is no workbook, or cut short ({short(error)})") from error
    try:
        lines = book.worksheets[0].iter_rows(values_only=True)
        yield from _with_header(lines, padded=True)
    except (zipfile.BadZipFile, KeyError, IndexError, ParseError, EOFError, TypeError) as error:
        raise UnreadableError(f"is no workbook, or cut short ({short(error)})") from error
    finally:
        book.close()


def _lines(file: Path, separator: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # Answers can be long.
    with file.open("rb") as head:
        # As a spreadsheet saves "Unicode text".
        is_utf16 = head.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with file.open(encoding="utf-16" if is_utf16 else "utf-8-sig", newline="") as stream:
        first = stream.readline()
        # No column of the kits has a separator in its name.
        separator = max((separator, ";", "\t", ","), key=first.count)
        stream.seek(0)
        lines = (
            [cell or None for cell in line] for line in csv.reader(stream, delimiter=separator)
        )
        yield from _with_header(lines)


def _with_header(lines: Iterable[Iterable[Any]], *, padded: bool = False) -> Iterator[Row]:
    """Yield rows by the names in the first line; a padded row may lack its last empty cells."""
    head: list[str] | None = None
    for line in lines:
        cells = list(line)
        if head is None:
            head = [text(cell) for cell in cells]
            if not any(head) or len(set(head)) < len(head):
                raise UnreadableError("has no header")
        elif any(cell is not None for cell in cells):
            if padded:
                cells += [None] * (len(head) - len(cells))
            if len(cells) != len(head):
                raise UnreadableError("has a row of another length than its header")
            yield dict(zip(head, cells, strict=True))


def _records(value: Any) -> Iterator[Row]:
    """Yield the rows of a list of objects; a single object is one row."""
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UnreadableError("is no table")
    for row in rows:
        yield {str(key): None if cell != cell else cell for key, cell in row.items()}
