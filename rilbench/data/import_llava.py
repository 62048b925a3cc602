"""LLaVA's JSON: a list of entries with ``id``, ``image`` and ``conversations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rilbench.data.conversations import read_turns, turn_questions
from rilbench.data.json_stream import read_objects
from rilbench.data.jsonl import as_list, to_image, to_text
from rilbench.data.question import InvalidQuestionError, Question


class LlavaJson:
    """A file in LLaVA's format, an array or one object on each line.

    Args:
        file: the JSON.
        images: the folder that image paths start from.
        all_turns: make every turn a question instead of the first alone.
        source: the source of entries without ``data_source`` and ``source``.
    """

    def __init__(self, file: Path, images: Path, all_turns: bool, source: str) -> None:
        self.file, self.images, self.all_turns, self.source = file, images, all_turns, source

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each entry; see `Format`."""
        for number, entry in read_objects(self.file):
            yield f"entry {number}", entry

    def questions(self, place: str, entry: Any) -> list[Question]:
        """Return the questions of an entry; see `Format`."""
        if not isinstance(entry, dict):
            raise InvalidQuestionError("it is not an object; is this LLaVA's format?")
        names = as_list(entry.get("image", entry.get("images")))
        if not names:
            raise InvalidQuestionError("it has no image; drop it")
        turns = read_turns(entry.get("conversations"), len(names), self.all_turns)
        id_ = entry.get("id")
        return turn_questions(
            to_text(place.split()[-1] if id_ in (None, "") else id_, "id"),
            tuple(to_image(name, self.images) for name in names),
            turns,
            to_text(entry.get("data_source") or entry.get("source") or self.source, "source"),
        )
