"""Questions as JSON lines: the fields of the Parquet file, images by path or within the line.

A line is an object with ``id``, ``question``, ``answer``, ``images`` (or ``image`` for a single
one) and optionally ``source``. An image is a path relative to the file's folder, a data URL
(``data:image/png;base64,…``), or an object ``{"base64": …}`` or ``{"path": …}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rilbench.data.question import Question, check_question
from rilbench.errors import InvalidQuestionError, UserError

_LONGEST = 256 << 20
"""Bytes of a line; a longer one is not a question."""


@dataclass(frozen=True)
class ImageRoot:
    """The folder that a data set's images are read from.

    A file of questions from somebody else must not read any other file of this machine.
    """

    folder: Path
    is_given: bool = False
    """The user named it: absolute paths that are in it may be read too."""
    follow_links: bool = False
    """Symbolic links in it may lead out of it."""

    def find(self, name: str) -> Path:
        """Return the file that a path names, which may not exist.

        Args:
            name: a path, relative to the folder or absolute, or a ``file://`` address.

        Raises:
            InvalidQuestionError: it leaves the folder.
        """
        name = name.removeprefix("file://")
        path, shown = self.folder / name, f"the image {name[:80]!r}"
        is_absolute = PurePosixPath(name).is_absolute()
        if is_absolute and not self.is_given:
            raise InvalidQuestionError(
                f"{shown} leads out of {self.folder}; convert it with rilbench data import "
                f"--images {PurePosixPath(name).parent.as_posix()[:80]}"
            )
        if ".." in PurePosixPath(name).parts or PureWindowsPath(name).drive:
            raise InvalidQuestionError(
                f"{shown} leads out of {self.folder}; copy it there and give a path below it"
            )
        try:
            is_below = path.absolute().is_relative_to(self.folder.absolute())
            is_inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError):  # an impossible name, or links in a circle
            return path  # the attempt to read it will give the reason
        if is_inside or (self.follow_links and is_below):
            return path
        remedy = "give --images with a folder above it" if is_absolute else _LINK_REMEDY
        raise InvalidQuestionError(f"{shown} leads out of {self.folder}; {remedy}")


_LINK_REMEDY = "it is a link: convert it with rilbench data import --follow-links"


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1.

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
                        "question a line, its images as paths"
                    )
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error


def parse_line(line: bytes, root: ImageRoot, source: str) -> Question:
    """Return the question of one line.

    Args:
        line: the line.
        root: where image paths start.
        source: the question's source if the line names none.

    Raises:
        InvalidQuestionError: the line is not a valid question.
    """
    row = parse_object(line)
    for name in ("id", "question", "answer"):
        if name not in row:
            raise InvalidQuestionError(f"it has no {name!r}; see docs/data.md for the fields")
    images = row["images"] if row.get("images") is not None else row.get("image")
    if images is None:
        raise InvalidQuestionError(
            f"question {row['id']!r} lacks its image; add it, or write images: [] if it has none"
        )
    return check_question(
        Question(
            id=to_text(row["id"], "id"),
            images=tuple(to_image(image, root) for image in as_list(images)),
            question=to_text(row["question"], "question"),
            answer=to_text(row["answer"], "answer"),
            source=to_text(row["source"], "source") if row.get("source") else source,
        )
    )


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object of one line.

    Raises:
        InvalidQuestionError: it is not one.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # bad JSON or bad UTF-8
        raise InvalidQuestionError("it is not JSON; write one object on each line") from error
    if not isinstance(row, dict):
        raise InvalidQuestionError("it is not a JSON object; write one object on each line")
    return row


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, nothing as an empty list, and anything else as a list of one."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def to_text(value: object, name: str) -> str:
    """Return the text or number of a field as text.

    A whole number is written without a point: pandas makes ``3.0`` of ``3`` beside a missing value.

    Raises:
        InvalidQuestionError: it is something else, or text that UTF-8 cannot encode.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidQuestionError(f"its {name!r} is {_kind(value)}; write a text")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidQuestionError(f"its {name!r} is {value}, not a number; write a text")
        value = int(value) if value.is_integer() else value
    try:
        text = str(value)
        text.encode("utf-8")
    except ValueError as error:  # half a surrogate pair, or an integer too long for str()
        raise InvalidQuestionError(f"its {name!r} is not valid text; fix it") from error
    return text


def _kind(value: object) -> str:
    kinds = {type(None): "null", bool: "true or false", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"of the type {type(value).__name__}")


def to_image(value: object, root: ImageRoot) -> bytes:
    """Return the encoded image that a value names or contains: bytes, a path, or an object of them.

    Raises:
        InvalidQuestionError: it is not an image, or a path that leaves the folder or has no file.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("base64"), str):
            return _decode(value["base64"])
        keys = ("bytes", "path", "image", "url")
        value = next((value[key] for key in keys if value.get(key)), None)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value.strip():
        raise InvalidQuestionError(f"an image is {_kind(value)}; give a path or a data URL")
    if value[:5].lower() == "data:":
        head, _, body = value.partition(",")
        if not head.lower().endswith(";base64"):
            raise InvalidQuestionError(
                "an image's data URL is not in base64; write data:…;base64,…"
            )
        return _decode(body)
    shown = repr(value[:80])
    if "://" in value[:12] and not value.startswith("file://"):
        raise InvalidQuestionError(f"the image {shown} is a URL; download it and give a path")
    try:
        return root.find(value).read_bytes()
    except InvalidQuestionError:  # a ValueError too
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        remedy = f"if it is base64, write data:image/png;base64,{value[:4]}…"
        if "." in value[-6:]:
            remedy = "copy it there, or give the folder that it is in with --images"
        raise InvalidQuestionError(
            f"the image {shown} cannot be read in {root.folder} ({reason}); {remedy}"
        ) from error


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidQuestionError("an image is not valid base64; encode it again") from error
