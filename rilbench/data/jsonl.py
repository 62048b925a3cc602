"""Questions as JSON lines: the fields of the Parquet file, pictures by path or in the line itself.

A line is an object with ``id``, ``question``, ``answer``, ``images`` (or ``image``, when there is
one) and, if wanted, ``source``. A picture is a path relative to the file's folder, a data URL
(``data:image/png;base64,…``), or an object ``{"base64": …}`` or ``{"path": …}``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rilbench.data.question import Question, RefusedError, checked
from rilbench.errors import UserError

_LONGEST = 256 << 20
"""Bytes of a line; a longer one is no line of questions."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1.

    Raises:
        UserError: the file cannot be read, or has a line of hundreds of megabytes.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST + 1):
                number += 1
                if len(line) > _LONGEST:
                    raise UserError(
                        f"line {number} of {path} is longer than {_LONGEST >> 20} MB; write one "
                        "question a line, its pictures as paths"
                    )
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); see to its rights") from error


def question_of(line: bytes, folder: Path, source: str) -> Question:
    """The question of one line.

    Args:
        line: its bytes.
        folder: that paths of pictures start from, and may not leave.
        source: for a line that names none.

    Raises:
        RefusedError: it is none, with the remedy.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # Of JSON or of UTF-8.
        raise RefusedError("it is no JSON; write one object on each line") from error
    if not isinstance(row, dict):
        raise RefusedError("it is no JSON object; write one object on each line")
    return question_of_row(row, folder, source)


def question_of_row(row: Mapping[str, Any], folder: Path, source: str) -> Question:
    """The question of the fields of one line; as `question_of`."""
    unknown = [name for name in ("id", "question", "answer") if name not in row]
    if unknown:
        raise RefusedError(f"it has no {unknown[0]!r}; see docs/data.md for the fields")
    return checked(
        Question(
            id=text_of(row["id"], "id"),
            images=tuple(picture_of(each, folder) for each in _images(row)),
            question=text_of(row["question"], "question"),
            answer=text_of(row["answer"], "answer"),
            source=text_of(row["source"], "source") if row.get("source") else source,
        )
    )


def _images(row: Mapping[str, Any]) -> list[Any]:
    images = row["images"] if row.get("images") is not None else row.get("image")
    if images is None:
        return []
    return images if isinstance(images, list) else [images]


def text_of(value: object, name: str) -> str:
    """A text or a number as text.

    Raises:
        RefusedError: it is something else, or half of a surrogate pair, which no file takes.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise RefusedError(f"its {name!r} is {_kind(value)}; write a text")
    try:
        text = str(value)
        text.encode("utf-8")
    except ValueError as error:  # Also an integer of more digits than Python prints.
        raise RefusedError(f"its {name!r} is no text that a file can hold; mend it") from error
    return text


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"of the type {type(value).__name__}")


def picture_of(value: object, folder: Path) -> bytes:
    """The encoded picture that a value names or holds.

    Raises:
        RefusedError: it is none; or a path that leaves the folder, or leads to no file.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("base64"), str):
            return _decoded(value["base64"])
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        raise RefusedError(f"a picture is {_kind(value)}; give a path or a data URL")
    if value[:5].lower() == "data:":
        head, _, body = value.partition(",")
        if not head.lower().endswith(";base64"):
            raise RefusedError("a picture's data URL is not in base64; write data:…;base64,…")
        return _decoded(body)
    if "://" in value[:12]:
        raise RefusedError(f"the picture {value[:80]!r} is an address; download it and give a path")
    return _file(value, folder)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError("a picture is no base64; encode it again") from error


def _file(name: str, folder: Path) -> bytes:
    shown = repr(name[:80])
    if not inside(name, folder):
        raise RefusedError(
            f"the picture {shown} leads out of {folder}; copy it there and give a path below it"
        )
    try:
        return (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no name of a file"
        raise RefusedError(
            f"the picture {shown} cannot be read in {folder} ({reason}); copy it there; bare "
            "base64 needs data:image/png;base64, before it"
        ) from error


def inside(name: str, folder: Path) -> bool:
    """Whether a name stays below a folder, links followed: a file from elsewhere may name any."""
    bare = PurePosixPath(name)
    if bare.is_absolute() or ".." in bare.parts or PureWindowsPath(name).drive:
        return False
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # A name that no file has; links in a circle.
        return True  # Reading it says why it cannot be had.
