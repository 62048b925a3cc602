"""What both workers share; runs under a kit's Python, where rilbench is not installed.

A worker is started as a script, so that its own folder is where its modules are found.
"""

import hashlib
import itertools
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

# What a broken or a missing picture makes Pillow and the kits raise.
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, AssertionError, TypeError, LookupError, EOFError),
    *(AttributeError, ArithmeticError, struct.error, zlib.error, Image.DecompressionBombError),
)


class JobError(Exception):
    """Something in the job that the user can mend."""


def why(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]


def shuffled(name: str, items: Collection[str]) -> list[str]:
    """The distinct items in an order that only they and the name decide."""
    return sorted(set(items), key=lambda item: hashlib.sha256(f"{name}/{item}".encode()).digest())


def dealt(
    name: str, parts: Mapping[str, Collection[str]], limit: int | None
) -> dict[str, set[str]]:
    """Of all parts together the items that a limit leaves: one of each part in turn.

    They are always the same, and spread over the parts and each of them.
    """
    if limit is None:
        return {part: set(items) for part, items in parts.items()}
    rows = [
        [(p, item) for item in shuffled(f"{name}/{p}", parts[p])] for p in shuffled(name, parts)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*rows))
    kept: dict[str, set[str]] = {part: set() for part in parts}
    for part, item in itertools.islice((each for each in turns if each is not None), limit):
        kept[part].add(item)
    return kept


Phase = Callable[[dict[str, Any]], None]


def work(phases: Mapping[str, Phase], prepare: Callable[[], object] = lambda: None) -> None:
    """Do one job named on the command line, or jobs from standard input until it closes.

    Args:
        phases: what does a job, by the jobs' names.
        prepare: called before the first of several jobs.
    """
    if len(sys.argv) > 1:
        phases[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        return
    # The kit prints; replies have a channel of their own, and what is printed goes to the log.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare()
    for line in sys.stdin:
        request = json.loads(line)
        problem = None
        try:
            phases[request["phase"]](request["job"])
        except JobError as error:
            problem = str(error)
        replies.write(json.dumps({"problem": problem}) + "\n")
        replies.flush()
