"""Read the objects of a JSON file of any size: an array, JSON lines, or one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rilbench.errors import UserError

_CHUNK = 1 << 20
_LONGEST = 64 << 20
"""Characters of one object; a longer one means a broken file."""
_OF_NUMBERS = "0123456789+-.eE"


def read_objects(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield every value of the file with its number from 1, without reading the file whole.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or is not JSON from some entry on.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _objects(path, file)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); encode it again") from error


def _objects(path: Path, file: TextIO) -> Iterator[tuple[int, Any]]:
    decoder, text, number, at_end, size = json.JSONDecoder(), "", 0, False, _CHUNK
    is_array: bool | None = None
    while True:
        text = text.lstrip(" \t\r\n,")  # separators between two values
        if text and is_array is None:
            is_array = text[0] == "["
            text = text[1:] if is_array else text
            continue
        if text and is_array and text[0] == "]":
            return
        end = 0
        if text:
            try:
                value, end = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                end = 0  # cut by the chunk, or broken: the next chunk will tell
        if end and (at_end or text[end:].strip(_OF_NUMBERS)):  # "1" may continue as "1e16"
            number += 1
            yield number, value
            text, size = text[end:], _CHUNK
            continue
        if at_end or len(text) > _LONGEST:
            break
        chunk = file.read(size)
        # Twice the size, since the value is parsed from its start again.
        at_end, text, size = not chunk, text + chunk, 2 * size
    if text:
        raise UserError(
            f"{path} is not JSON at entry {number + 1} ({text[:40]!r}); download or write it again"
        )
    if is_array:
        raise UserError(
            f"{path} ends after entry {number} without its closing bracket; download it again"
        )
