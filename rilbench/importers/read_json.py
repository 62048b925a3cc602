"""Read a kit's JSON: with or without a byte-order mark, its texts as a database takes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rilbench.importers.types import UnreadableError, short
from rilbench.printable import valid_text

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    r"""Return the value of a JSON text; half a surrogate pair (``"\ud83d"``) becomes "?".

    Raises:
        ValueError, RecursionError: it is no JSON, or nested too deeply.
    """
    value = json.loads(text)
    if _SURROGATE.search(text) is None:
        return value
    return json.loads(valid_text(json.dumps(value, ensure_ascii=False)))


def read_json(file: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        UnreadableError: it cannot be read, or is no JSON.
    """
    try:
        return parse_json(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"is no JSON, or cut short ({short(error)})") from error


def read_json_lines(file: Path) -> list[Any]:
    """Return the value of each line of a JSON lines file.

    Raises:
        UnreadableError: it cannot be read, or a line is no JSON.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            return [parse_json(line) for line in stream if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"is no JSON lines, or cut short ({short(error)})") from error
