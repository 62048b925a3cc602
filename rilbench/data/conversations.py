"""Conversations of visual-instruction data sets as pairs of question and answer.

LLaVA writes ``[{"from": "human", "value": …}, {"from": "gpt", "value": …}]``, the Cauldron
``[{"user": …, "assistant": …}]``, chat templates ``[{"role": "user", "content": …}, …]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rilbench.data.jsonl import to_text
from rilbench.data.question import PLACEHOLDER, Question
from rilbench.errors import InvalidQuestionError

_USER = ("human", "user")
_ASSISTANT = ("gpt", "assistant", "model")


def read_turns(conversation: Any, num_images: int, all_turns: bool) -> list[tuple[str, str]]:
    """Return question and answer of the first turn, or of each turn without those before it.

    A later turn is about the same images without marking their places. A conversation is refused
    if its first question does not mention all images: the others are meant for a later turn.

    Args:
        conversation: the value of the data set's field.
        num_images: the images of the entry.
        all_turns: return every turn instead of the first.

    Raises:
        InvalidQuestionError: it is not a conversation, question and answer do not alternate, or
            the placeholders do not match the images.
    """
    pairs = _pairs(conversation)
    first = pairs[0][0].count(PLACEHOLDER)
    if first not in (0, num_images):
        raise InvalidQuestionError(
            f"its first question has {first} {PLACEHOLDER}, the entry {num_images} images; drop it"
        )
    chosen = pairs if all_turns else pairs[:1]
    if any(question.count(PLACEHOLDER) not in (0, num_images) for question, _ in chosen):
        raise InvalidQuestionError(f"a later question has another number of {PLACEHOLDER}; drop it")
    return chosen


def read_prompt(conversation: Any) -> str:
    """Return the question of a conversation whose answer stands elsewhere.

    Args:
        conversation: a list of turns, JSON of one, or the question itself.

    Raises:
        InvalidQuestionError: it is none of these, or asks more than one question.
    """
    turns = _as_turns(conversation)
    if isinstance(turns, str):
        return turns.strip()
    questions = [text for is_question, text in _turns(turns) if is_question]
    if len(questions) != 1:
        raise InvalidQuestionError(f"its conversation has {len(questions)} questions; drop it")
    return questions[0].strip()


def _as_turns(conversation: Any) -> Any:
    """The conversation, parsed if it is JSON."""
    if isinstance(conversation, str) and conversation.lstrip().startswith("["):
        try:
            return json.loads(conversation)
        except (ValueError, RecursionError):  # a question that starts with a bracket
            return conversation
    return conversation


def turn_questions(
    id_: str, images: tuple[bytes, ...], turns: list[tuple[str, str]], source: str
) -> list[Question]:
    """Return a question for each turn: the first has the entry's id, the k-th ``id.k``.

    LLaVA puts the image's mark before or after the first question at random, on its own line. It is
    removed, so that images come first in every question.
    """
    questions = []
    for number, (text, answer) in enumerate(turns, 1):
        at_edge = text.startswith(PLACEHOLDER) or text.endswith(PLACEHOLDER)
        if text.count(PLACEHOLDER) == len(images) == 1 and at_edge:
            text = text.replace(PLACEHOLDER, "").strip()
        turn_id = id_ if number == 1 else f"{id_}.{number}"
        questions.append(Question(turn_id, images, text, answer, source))
    return questions


def _pairs(conversation: Any) -> list[tuple[str, str]]:
    conversation = _as_turns(conversation)
    pairs: list[tuple[str, str]] = []
    question: str | None = None
    for is_question, text in _turns(conversation):
        if is_question == (question is not None):
            raise InvalidQuestionError(
                "question and answer do not alternate in its conversation; drop it"
            )
        if question is None:
            question = text
        else:
            pairs.append((question.strip(), text.strip()))
            question = None
    if not pairs:
        raise InvalidQuestionError("its conversation has no answer; drop it")
    return pairs


def _turns(conversation: Any) -> Iterator[tuple[bool, str]]:
    """Yield whether a turn is a question, and its text; system turns are left out."""
    if not isinstance(conversation, list) or not conversation:
        raise InvalidQuestionError("it has no conversation; drop it")
    for turn in conversation:
        if not isinstance(turn, dict):
            raise InvalidQuestionError("a turn of its conversation is not an object; drop it")
        if "user" in turn and "assistant" in turn:
            yield True, to_text(turn["user"], "user")
            yield False, to_text(turn["assistant"], "assistant")
            continue
        speaker = turn.get("from", turn.get("role"))
        if speaker == "system":
            continue
        if speaker not in (*_USER, *_ASSISTANT):
            raise InvalidQuestionError(
                f"a turn of its conversation is by {str(speaker)[:40]!r}; drop it"
            )
        yield speaker in _USER, _turn_text(turn.get("value", turn.get("content")))


def _turn_text(content: Any) -> str:
    """A turn's text; a list of parts becomes one text with ``<image>`` for each image."""
    if not isinstance(content, list):
        return to_text(content, "conversation")
    texts = []
    for part in content:
        is_image = isinstance(part, dict) and part.get("type") in ("image", "image_url")
        text = part.get("text") if isinstance(part, dict) else part
        texts.append(PLACEHOLDER if is_image else to_text(text, "conversation"))
    return "".join(texts)
