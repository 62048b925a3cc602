"""Objects out of a JSON file of any size: an array, one on each line, or one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rilbench.errors import UserError

_CHUNK = 1 << 20
_LONGEST = 64 << 20
"""Characters of one object; what is longer is a broken file."""
_OF_NUMBERS = "0123456789+-.eE"


def read_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Every value of the file with its number from 1, never the whole file at once.

    Raises:
        UserError: it cannot be read, is no UTF-8, or no JSON from some entry on.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _objects(path, file)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); see to it") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); encode it again") from error


def _objects(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    decoder, text, number, ended, size = json.JSONDecoder(), "", 0, False, _CHUNK
    array: bool | None = None
    while True:
        # Between two values stand commas and white space, around an array its brackets.
        text = text.lstrip(" \t\r\n,")
        if text and array is None:
            array = text[0] == "["
            text = text[1:] if array else text
            continue
        if text and array and text[0] == "]":
            return
        end = 0
        if text:
            try:
                value, end = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                end = 0  # Cut by the chunk, or broken: more of the file will tell.
        if end and (ended or text[end:].strip(_OF_NUMBERS)):  # "1" may go on with "e16".
            number += 1
            yield number, value
            text, size = text[end:], _CHUNK
            continue
        if ended or len(text) > _LONGEST:
            break
        more = file.read(size)
        ended, text, size = not more, text + more, 2 * size  # Doubled: each part is read again.
    if text:
        raise UserError(
            f"{path} is no JSON at entry {number + 1} ({text[:40]!r}); download or write it again"
        )
    if array:
        raise UserError(
            f"{path} ends after entry {number} without its closing bracket; download it again"
        )
