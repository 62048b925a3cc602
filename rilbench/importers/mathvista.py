"""MathVista's rule for a right answer, as ms-vlmeval 0.0.20 has it.

The kit's tables keep the answer that the judge read, but not whether it is right. The mean of this
rule's verdicts is compared with the kit's own total (`rilbench.importers.types.settled`), so that a
kit with another rule is noticed.
"""

from __future__ import annotations

import ast
import string
from collections.abc import Mapping
from typing import Any

from rilbench.importers.read_tables import text
from rilbench.importers.types import UnreadableError

_MARKS = ".()[],:;!*#{}"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_LAST_WORDS = 5
"""A letter counts as the choice if it is among the last five words."""


def is_right(row: Mapping[str, Any]) -> bool:
    """Return whether the answer that the judge read (``res``) is the truth.

    Raises:
        UnreadableError: a column is missing, or the choices are not a list.
    """
    try:
        read, kind = row["res"], row["question_type"]
        if kind == "multi_choice":
            return chosen(text(read), _options(row["choices"])) == text(row["answer_option"])
        if row["answer_type"] == "integer":
            return int(text(read)) == int(text(row["answer"]))
        if row["answer_type"] == "float":
            return float(text(read)) == float(text(row["answer"]))
        # The kit compares the text "None" with other answers.
        return text(row["answer"]) == "None"
    except KeyError as error:
        raise UnreadableError(f"has no column {error}") from error
    except ValueError:
        return False


def _options(cell: Any) -> dict[str, str]:
    try:
        choices = ast.literal_eval(cell) if isinstance(cell, str) else cell
        return {string.ascii_uppercase[i]: str(choice) for i, choice in enumerate(choices)}
    except (ValueError, SyntaxError, TypeError, IndexError, MemoryError, RecursionError) as error:
        raise UnreadableError("has choices that are no list") from error


def chosen(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer names by its letter, else by its text; "Z" for none."""
    return _by_letter(answer, options) or _by_text(answer, options)


def _by_letter(answer: str, options: Mapping[str, str]) -> str | None:
    if "Failed to obtain answer via API" in answer:
        return None
    if any(refusal in answer for refusal in _REFUSALS):
        return "Z"
    for mark in _MARKS:
        answer = answer.replace(mark, " ")
    words = answer.split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1 and words.index(letters[0]) > len(words) - _LAST_WORDS:
        return letters[0]
    # The kit also looks for an empty word, which no answer has.
    return "Z" if not letters and "Z" in words else None


def _by_text(answer: str, options: Mapping[str, str]) -> str | None:
    answer = answer.lower()
    if len(answer) > 2 * sum(len(option) for option in options.values()):
        return None
    letters = [letter for letter, option in options.items() if option.lower() in answer]
    return letters[0] if len(letters) == 1 else None
