"""Layouts of other people's data sets, recognised by their columns, and the questions in a row.

A column is written with dots where it is a field of a struct (``reward_model.ground_truth``).
``a|b`` is the first of two columns that exists, and ``a+b`` both texts, one below the other.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rilbench.data.conversations import read_prompt, read_turns, turn_questions
from rilbench.data.golds import gold_answer
from rilbench.data.jsonl import ImageRoot, as_list, to_image, to_text
from rilbench.data.question import Question
from rilbench.errors import InvalidQuestionError, UserError

FIELDS = ("id", "images", "question", "answer", "options", "conversation", "source")
"""What a column can be used for."""


@dataclass(frozen=True)
class Layout:
    """A layout: it has a column for each field in ``needed``."""

    name: str
    needed: Mapping[str, str]
    optional: Mapping[str, str]


def _layout(name: str, *, optional: Mapping[str, str] | None = None, **needed: str) -> Layout:
    return Layout(name, needed, optional or {})


_ANYWHERE = {
    "id": "id|question_id|qid",
    "images": "images|image|image_urls|image_path",
    "options": "options|choices",
    "source": "data_source|source",
}
"""Columns of any layout."""

LAYOUTS = (
    _layout("verl", conversation="prompt", answer="reward_model.ground_truth"),
    _layout("TRL", conversation="prompt", answer="solution|answer|ground_truth"),
    _layout("MM-Eureka", conversation="conversations", answer="answer", images="image_urls"),
    _layout("ms-swift or LLaMA-Factory", conversation="messages", optional={"answer": "solution"}),
    _layout("The Cauldron", conversation="texts"),
    _layout("LLaVA", conversation="conversations"),
    _layout("MMPR", question="question", answer="chosen"),
    _layout("multimodal-open-r1", question="original_question", answer="original_answer"),
    _layout("Alpaca, of LLaMA-Factory", question="instruction+input|instruction", answer="output"),
    _layout("ScienceQA", question="hint+question", options="choices", answer="answer"),
    _layout("A-OKVQA", question="question", options="choices", answer="correct_choice_idx"),
    _layout("EasyR1", question="problem", answer="answer|ground_truth"),
    _layout("R1-V", question="problem", answer="solution"),
    _layout(
        "question and answer",
        question="question|query",
        answer="answer|answers|label|response|ground_truth",
    ),
)
"""The first that fits is taken."""
_UNKNOWN = _layout(
    "your columns",
    optional={
        "question": "question|query|problem|instruction",
        "answer": "answer|label|output",
        "conversation": "messages|conversations|texts|prompt",
    },
)
"""For columns that are no layout before the user has named the others."""


@dataclass(frozen=True)
class Columns:
    """Which column of a row is used for which field."""

    layout: str
    used: Mapping[str, str]

    def __str__(self) -> str:
        """The layout and its columns, for the user."""
        pairs = ", ".join(f"{field}={column}" for field, column in self.used.items())
        return f"{self.layout} ({pairs})"

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return sorted({part for column in self.used.values() for part in column.split("+")})

    def cell(self, row: Mapping[str, Any], field: str) -> Any:
        """The value of a field; None without one."""
        if field not in self.used:
            return None
        column = self.used[field]
        if column in row:
            return row[column]
        parts = [_value(row, part) for part in column.split("+")]
        if len(parts) == 1:
            return parts[0]
        texts = [to_text(part, column).strip() for part in parts if part is not None]
        return "\n".join(filter(None, texts))


_LISTED = 30
"""Columns that a message names."""
_AS_TEXT = ", or take it as text with --text-only"


def recognise(
    names: Collection[str], chosen: Mapping[str, str], *, text_only: bool = False
) -> Columns:
    """Return the columns of the layout that has these names.

    Args:
        names: of the columns; those in structs with dots.
        chosen: field → column, as the user wants it; "": none.
        text_only: there may be no column of images.

    Raises:
        InvalidQuestionError: a field that is needed has no column.
    """
    layout = next(
        (lay for lay in LAYOUTS if all(_pick(c, names) for c in lay.needed.values())), _UNKNOWN
    )
    candidates = {**_ANYWHERE, **layout.optional, **layout.needed}
    found = {field: _pick(column, names) for field, column in candidates.items()} | dict(chosen)
    used = {field: found[field] for field in FIELDS if found.get(field)}
    if {"question", "conversation"} <= set(used):
        used.pop("question" if chosen.get("conversation") else "conversation")
    if "conversation" in used:
        used.pop("options", None)
    needed = ("images",) if "conversation" in used else ("images", "question", "answer")
    shown = listed([name for name in names if "." not in name])
    for field in needed:
        if field not in used and not (text_only and field == "images"):
            lacking = "image" if field == "images" else field
            raise InvalidQuestionError(
                f"it has no {lacking} (its columns: {shown}); drop it, or name the column with "
                f"--columns {field}=NAME{_AS_TEXT if field == 'images' else ''}"
            )
    for field, column in used.items():
        if not _pick(column, names):
            raise InvalidQuestionError(
                f"it has no column {column!r}, named for the {field} (its columns: {shown}); name "
                "another with --columns"
            )
    return Columns(layout.name, used)


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message; JSON that is one object has one for each question."""
    more = f", … ({len(names)} in all)" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def check_fields(chosen: Mapping[str, str]) -> None:
    """Refuse a choice of columns for fields that do not exist.

    Raises:
        UserError: lists the fields.
    """
    for field in chosen:
        if field not in FIELDS:
            raise UserError(f"--columns {field}=… is not known; use {', '.join(FIELDS)}")


def column_names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a row's columns, then those of fields in structs."""
    yield from row
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{inner}" for inner in column_names(value))


def row_questions(
    columns: Columns,
    row: Mapping[str, Any],
    root: ImageRoot,
    *,
    default_id: str,
    default_source: str,
    all_turns: bool = False,
    whole_answers: bool = False,
    text_only: bool = False,
) -> list[Question]:
    """Return the questions of a row.

    Args:
        columns: of the row.
        row: by column.
        root: of its images' paths.
        default_id: the id of a row without one.
        default_source: the source of a row without one.
        all_turns: make a question of every turn of a conversation.
        whole_answers: take answers as they are; they are responses to learn.
        text_only: a row without an image is a question as well.

    Raises:
        InvalidQuestionError: it has no valid question.
    """
    cells = [cell for cell in as_list(columns.cell(row, "images")) if cell is not None]
    images = tuple(to_image(cell, root) for cell in cells)
    if not (images or text_only):
        raise InvalidQuestionError(f"it has no image; drop it{_AS_TEXT}")

    def gold(value: Any, column: str) -> str:
        return to_text(value, "answer") if whole_answers else gold_answer(value, column)

    answer = columns.cell(row, "answer")
    if "conversation" in columns.used and answer in (None, ""):
        pairs = read_turns(columns.cell(row, "conversation"), len(images), all_turns)
        turns = [(question, gold(text, "conversation")) for question, text in pairs]
    elif "conversation" in columns.used:
        prompt = read_prompt(columns.cell(row, "conversation"))
        turns = [(prompt, gold(answer, columns.used["answer"]))]
    else:
        question = to_text(columns.cell(row, "question"), "question")
        options = columns.cell(row, "options")
        if options:
            turns = [_with_options(question, answer, options)]
        else:
            turns = [(question, gold(answer, columns.used["answer"]))]
    id_ = columns.cell(row, "id")
    source = columns.cell(row, "source") or default_source
    return turn_questions(
        to_text(default_id if id_ in (None, "") else id_, "id"),
        images,
        turns,
        to_text(source, "source"),
    )


def _pick(candidates: str, names: Collection[str]) -> str:
    """The first of some columns that exists; "" if none does."""
    for column in candidates.split("|"):
        if column in names or all(part in names for part in column.split("+")):
            return column
    return ""


def _value(row: Any, column: str) -> Any:
    """The value at a path with dots; None if there is nothing."""
    if not isinstance(row, Mapping) or column in row:
        return row.get(column) if isinstance(row, Mapping) else None
    head, dot, rest = column.partition(".")
    return _value(row.get(head), rest) if dot else None


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _with_options(question: str, answer: Any, options: Any) -> tuple[str, str]:
    """The question with its options below it, unless it has them, and the right one's letter.

    Raises:
        InvalidQuestionError: the answer is not one of the options, or is ambiguous.
    """
    if isinstance(options, str):
        options = _written_list(options)
    if not options:
        return question, gold_answer(answer, "answer")
    texts = [to_text(option, "options").strip() for option in options]
    right = _right_option(answer, texts)
    pairs = list(zip(LETTERS, texts, strict=False))
    marks = (": ", ". ", ") ", ".", ")", ":")
    if all(any(f"{letter}{mark}{text}" in question for mark in marks) for letter, text in pairs):
        return question, LETTERS[right]
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in pairs)]), LETTERS[right]


def _written_list(text: str) -> list[Any]:
    """Options that were written as the text of a list.

    Raises:
        InvalidQuestionError: they are another text.
    """
    try:
        options = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        options = None
    if not isinstance(options, list):
        raise InvalidQuestionError(
            f"its options {text[:40]!r} are no list; give --columns "
            "question=question+options,options= to have them below the question as they are"
        )
    return options


def _right_option(answer: Any, options: list[str]) -> int:
    """The index of the right option, which is given by its text, its letter or its index."""
    if len(options) > len(LETTERS):
        raise InvalidQuestionError(f"it has {len(options)} options; drop it")
    text = to_text(answer, "answer").strip()
    index = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None
    matches = [i for i, option in enumerate(options) if option == text]
    if isinstance(answer, int) or not matches:
        matches = [index] if index is not None else matches or [LETTERS.find(text or "?")]
    elif index is not None and index < len(options) and index not in matches:
        raise InvalidQuestionError(
            f"its answer {text!r} is one option and the number of another; fix it"
        )
    if len(matches) != 1 or not 0 <= matches[0] < len(options):
        raise InvalidQuestionError(f"its answer {text!r} is not one of its options; drop it")
    return matches[0]
