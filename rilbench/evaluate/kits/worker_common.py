"""What both workers share; runs under a kit's Python, where rilbench is not installed.

A worker is started as a script, so that it finds the modules in its own folder.
"""

import ast
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

JUDGE_THREADS = 32
"""Questions to the judge in flight."""

UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    AssertionError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions of Pillow and the kits about a broken or missing picture."""


class JobError(Exception):
    """A problem of the job that the user can fix."""


class NoRandomGuess:
    """A replacement of ``random``: where a kit would guess an option, one that is never right.

    VLMEvalKit's log then always says that it guessed, and the verdict can be withdrawn.
    """

    @staticmethod
    def choice(_: object) -> str:
        """Return no option."""
        return "?"

    @staticmethod
    def randint(_: int, last: int) -> int:
        """Return the last one: MMBench's "none of them"."""
        return last

    @staticmethod
    def seed(_: object) -> None:
        """Do nothing."""


def why(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]


def question_of_rotation(index: Any) -> str:
    """Return the question that a row of a circular benchmark is a rotation of."""
    return str(int(index) % 1_000_000)


def unread(choices: list[dict[str, str]]) -> bool:
    """Return whether a question is wrong only because no letter was read in one of its answers."""
    read = [(choice["read"], choice["gold"]) for choice in choices]
    return any(not letter for letter, _ in read) and all(
        letter in ("", gold) for letter, gold in read
    )


def shuffled(name: str, items: Collection[str]) -> list[str]:
    """Return the distinct items in an order that depends on them and the name only."""
    return sorted(set(items), key=lambda item: hashlib.sha256(f"{name}/{item}".encode()).digest())


def limited(
    name: str, parts: Mapping[str, Collection[str]], limit: int | None
) -> dict[str, set[str]]:
    """Return ``limit`` items of all parts together, one of each part in turn; None keeps all.

    They are always the same, and spread over the parts and over each part.
    """
    if limit is None:
        return {part: set(items) for part, items in parts.items()}
    columns = [
        [(p, item) for item in shuffled(f"{name}/{p}", parts[p])] for p in shuffled(name, parts)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*columns))
    kept: dict[str, set[str]] = {part: set() for part in parts}
    for part, item in itertools.islice((turn for turn in turns if turn is not None), limit):
        kept[part].add(item)
    return kept


def gold(answer: str) -> str:
    """Return a right answer: of several that are accepted, the first."""
    try:
        several = ast.literal_eval(answer)
    except (ValueError, SyntaxError):
        return answer
    return str(several[0]) if isinstance(several, list) and several else answer


def tried(
    name: str, golds: dict[str, str], score: Callable[[dict[str, str]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return how a kit scores right answers, either half of them, and one answer to all questions.

    A wrong answer is one that is right for another question: to an F1 only "no" is wrong for "yes".
    With one answer to all an F1 is no share of right answers, as it may be by chance with halves.

    It shows, before a model is asked, whether the kit can score the data set at all, what its total
    is where everything is right, and whether the total is the mean of its questions.

    Args:
        name: of the data set.
        golds: right answers by question id.
        score: returns a result of a ``score`` job for answers.

    Returns:
        For each, the result without its questions, and the mean of their outcomes.
    """
    order = shuffled(name, golds)
    half = set(order[: len(order) // 2])
    first, second = [*dict.fromkeys(golds.values()), "?"][:2]
    found = []
    swapped = {key: second if text == first else first for key, text in golds.items()}
    for answers in (
        golds,
        {key: swapped[key] if key in half else text for key, text in golds.items()},
        {key: text if key in half else swapped[key] for key, text in golds.items()},
        dict.fromkeys(golds, first),
    ):
        result = score(answers)
        questions = result.pop("questions")
        values = [float(question["outcome"] or 0.0) for question in questions]
        found.append({"result": result, "mean": sum(values) / len(values)})
    return found


Phase = Callable[[dict[str, Any]], None]


def work(phases: Mapping[str, Phase], prepare: Callable[[], object] = lambda: None) -> None:
    """Do one job named on the command line, or jobs from standard input until it closes.

    Args:
        phases: functions that do a job, by the jobs' names.
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
