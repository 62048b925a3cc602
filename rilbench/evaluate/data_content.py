"""What a benchmark's data file holds, read before a question is asked: table, golds, pictures."""

from __future__ import annotations

import ast
import base64
import csv
import io
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rilbench.evaluate.suite import Dataset

_PARQUET = b"PAR1"
_ROTATION = 1_000_000  # index + k times this is a rotation of a circular question
_SHORTEST_PICTURE = 65  # characters; what is shorter is the index of the row that has the picture
_TOLD = 3  # questions that a sentence names


@dataclass
class Contents:
    """What a file holds.

    Attributes:
        broken: why it is no data file at all, or not a whole one; empty if it is.
        questions: number of scored questions: of the data set's split, without rotations.
        wrong_golds: ids of the questions whose answer is none of their options.
        unreadable: ids of those with a picture that cannot be read.
    """

    broken: str = ""
    questions: int = 0
    wrong_golds: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def faults(self, published: int | None) -> list[str]:
        """Return what is wrong with the questions, in words.

        Args:
            published: number of questions of the published data set; None for a stand-in.
        """
        found = []
        if published is not None and self.questions != published:
            found.append(f"{self.questions:,} of the {published:,} published questions")
        if self.wrong_golds:
            named = _named(self.wrong_golds)
            found.append(f"the answer is none of the options and always wrong: {named}")
        if self.unreadable:
            found.append(f"a picture cannot be read: {_named(self.unreadable)}")
        return found


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - _TOLD} more" if len(ids) > _TOLD else ""
    return f"question {', '.join(ids[:_TOLD])}{more}"


def why_no_data(path: Path) -> str:
    """Return what a file is that a download left in place of data; empty if it may be data."""
    with path.open("rb") as stream:
        start = stream.read(512)
        stream.seek(max(0, path.stat().st_size - len(_PARQUET)))
        end = stream.read()
    if not start:
        return "an empty file; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer; run git lfs pull there"
    if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML page, such as a server's error; download it again"
    if path.suffix == ".parquet" and not (start.startswith(_PARQUET) and end == _PARQUET):
        return "not a whole Parquet file; download it again"
    return ""


def read_contents(path: Path, dataset: Dataset) -> Contents:
    """Read a VLMEvalKit file: its rows, their golds and their pictures."""
    if why := why_no_data(path):
        return Contents(why)
    csv.field_size_limit(sys.maxsize)
    found, groups, indices = Contents(), set[str](), set[str]()
    last_ends, referred = True, dict[str, str]()
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t")
            columns = reader.fieldnames or []
            if lacking := [name for name in ("index", "question") if name not in columns]:
                return Contents(
                    f"not a table of questions: it lacks {' and '.join(lacking)}, and its columns "
                    f"are {columns[:6]}"
                )
            for row in reader:
                last_ends = None not in row.values()
                if not last_ends:
                    break
                name = row["index"]
                indices.add(name)
                if dataset.split is not None and row.get("split") != dataset.split:
                    continue
                groups.add(_group(name) if dataset.circular else name)
                if not _gold_is_an_option(row):
                    found.wrong_golds.append(name)
                picture = row.get("image") or ""
                if 0 < len(picture) < _SHORTEST_PICTURE:
                    referred[name] = picture
                elif picture and not all(map(_is_picture, _pictures(picture))):
                    found.unreadable.append(name)
    except (UnicodeDecodeError, csv.Error) as error:
        return Contents(f"not a table in UTF-8 ({error}); download it again")
    found.questions = len(groups)
    found.unreadable += [name for name, other in referred.items() if other not in indices]
    if not last_ends:
        return Contents(f"cut off after {found.questions:,} questions; download it again")
    return found if found.questions else Contents("a table without a question")


def _group(index: str) -> str:
    """The question of which a row is a rotation."""
    return str(int(index) % _ROTATION) if index.isdecimal() else index


def _gold_is_an_option(row: dict[str, str]) -> bool:
    """Whether the answer is the letter of an option; True without options."""
    options = [letter for letter in string.ascii_uppercase if row.get(letter)]
    return not options or "answer" not in row or row["answer"] in options


def _pictures(cell: str) -> Iterator[str]:
    """The pictures in a cell: one in base64, or a Python list of them."""
    if not cell.startswith("["):
        yield cell
        return
    try:
        yield from map(str, ast.literal_eval(cell))
    except (ValueError, SyntaxError):
        yield ""


def _is_picture(encoded: str) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
            picture.draft(None, (64, 64))  # A JPEG is decoded to its end, quickly.
            picture.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return False
    except Image.DecompressionBombError:  # Large, not broken.
        return True
    return True
