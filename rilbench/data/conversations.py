"""A conversation of a visual-instruction data set as pairs of question and answer.

LLaVA writes ``[{"from": "human", "value": …}, {"from": "gpt", "value": …}]``, the Cauldron
``[{"user": …, "assistant": …}]``, chat templates ``[{"role": "user", "content": …}, …]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rilbench.data.jsonl import text_of
from rilbench.data.question import PLACEHOLDER, RefusedError

_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant", "model")


def pairs(conversation: Any) -> list[tuple[str, str]]:
    """What was asked and answered, turn by turn; what a system says before it is left out.

    Raises:
        RefusedError: it is no conversation, or question and answer do not take turns.
    """
    if not isinstance(conversation, list) or not conversation:
        raise RefusedError("it has no conversation; drop it")
    found: list[tuple[str, str]] = []
    asked: str | None = None
    for is_question, text in _turns(conversation):
        if is_question == (asked is not None):
            raise RefusedError("question and answer do not take turns in its conversation; drop it")
        if asked is None:
            asked = text
        else:
            found.append((asked.strip(), text.strip()))
            asked = None
    if not found:
        raise RefusedError("its conversation has no answer; drop it")
    return found


def _turns(conversation: list[Any]) -> Iterator[tuple[bool, str]]:
    """Whether each turn asks, and its text."""
    for turn in conversation:
        if not isinstance(turn, dict):
            raise RefusedError("a turn of its conversation is no object; drop it")
        if "user" in turn and "assistant" in turn:
            yield True, text_of(turn["user"], "user")
            yield False, text_of(turn["assistant"], "assistant")
            continue
        speaker = turn.get("from", turn.get("role"))
        if speaker == "system":
            continue
        if speaker not in (*_ASKS, *_ANSWERS):
            raise RefusedError(f"a turn of its conversation is by {str(speaker)[:40]!r}; drop it")
        yield speaker in _ASKS, _words(turn.get("value", turn.get("content")))


def _words(content: Any) -> str:
    """A turn's text; of a list of parts, with ``<image>`` for a picture."""
    if not isinstance(content, list):
        return text_of(content, "conversation")
    texts = []
    for part in content:
        is_picture = isinstance(part, dict) and part.get("type") in ("image", "image_url")
        text = part.get("text") if isinstance(part, dict) else part
        texts.append(PLACEHOLDER if is_picture else text_of(text, "conversation"))
    return "".join(texts)


def asked(found: list[tuple[str, str]], pictures: int, every: bool) -> list[tuple[str, str]]:
    """The pairs that are asked: the first, or each by itself, without what was said before it.

    A later turn looks at the same pictures without saying where they go. Pictures that the data set
    shows from a later turn on only would be shown too early: such a conversation is refused.

    Raises:
        RefusedError: with the pictures that its first question does not mention.
    """
    first = found[0][0].count(PLACEHOLDER)
    if first not in (0, pictures):
        raise RefusedError(
            f"its first question has {first} {PLACEHOLDER}, the entry {pictures} pictures; drop it"
        )
    chosen = found if every else found[:1]
    if any(question.count(PLACEHOLDER) not in (0, pictures) for question, _ in chosen):
        raise RefusedError(f"a later question has another number of {PLACEHOLDER}; drop it")
    return chosen
