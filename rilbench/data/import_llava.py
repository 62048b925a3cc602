"""LLaVA's JSON: a list of entries with ``id``, ``image`` and ``conversations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rilbench.data.conversations import asked, pairs
from rilbench.data.json_stream import read_objects
from rilbench.data.jsonl import picture_of, text_of
from rilbench.data.question import PLACEHOLDER, Question, RefusedError


class Llava:
    """A file in LLaVA's format, an array or one object on each line.

    Args:
        file: the JSON.
        images: folder that its paths of pictures start from.
        every: ask each turn by itself instead of the first alone.
        source: of entries that name none as ``data_source`` or ``source``.
    """

    def __init__(self, file: Path, images: Path, every: bool, source: str) -> None:
        self.file, self.images, self.every, self.source = file, images, every, source

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Each entry, and where it stands."""
        for number, entry in read_objects(self.file):
            yield f"entry {number}", entry

    def questions(self, place: str, entry: Any) -> list[Question]:
        """What an entry asks.

        Raises:
            RefusedError: it has no picture, no conversation, or one that cannot be taken apart.
        """
        if not isinstance(entry, dict):
            raise RefusedError("it is no object; is this LLaVA's format?")
        given = entry.get("image", entry.get("images"))
        names = given if isinstance(given, list) else [] if given is None else [given]
        if not names:
            raise RefusedError("it has no picture; drop it")
        turns = asked(pairs(entry.get("conversations")), len(names), self.every)
        name = entry.get("id")
        return conversation_questions(
            text_of(place.split()[-1] if name in (None, "") else name, "id"),
            tuple(picture_of(each, self.images) for each in names),
            turns,
            text_of(entry.get("data_source") or entry.get("source") or self.source, "source"),
        )


def conversation_questions(
    name: str, images: tuple[bytes, ...], turns: list[tuple[str, str]], source: str
) -> list[Question]:
    """A question for each pair: the first has the entry's id, the k-th after it ``id.k``.

    LLaVA puts the picture's mark before or behind the first question at random, on a line of its
    own; without marks the pictures come first in all of them.
    """
    found = []
    for number, (question, answer) in enumerate(turns, 1):
        marks = question.count(PLACEHOLDER)
        around = question.startswith(PLACEHOLDER) or question.endswith(PLACEHOLDER)
        text = question.replace(PLACEHOLDER, "").strip() if marks == 1 and around else question
        own = name if number == 1 else f"{name}.{number}"
        found.append(Question(own, images, text, answer, source))
    return found
