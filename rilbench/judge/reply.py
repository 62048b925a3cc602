"""What a judge's server returns: the text that counts, without a reasoning model's thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rilbench.serving.transport import NoReplyError

LIMITS = ("max_tokens", "max_completion_tokens")
"""Fields of a request that limit the reply; servers know one or the other."""

_THINKS, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True)
class Reply:
    """A judge's reply.

    Attributes:
        text: what it says, without its reasoning; empty where it came to no word.
        is_cut: whether the longest reply was reached, so that the text is not whole.
        model: the model that replied, as the server calls it; empty if it does not say.
        why_empty: why there is no text, for people.
    """

    text: str
    is_cut: bool
    model: str
    why_empty: str = ""


def read_reply(completion: Any) -> Reply:
    """Read a chat completion.

    The server returns the reasoning apart (``reasoning_content``; then ``content`` may be null), or
    the text has it before ``</think>``.

    Raises:
        NoReplyError: it is none, or was withheld.
    """
    try:
        choice = completion["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason")
        text = message.get("content")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        model = str(completion.get("model") or "")
    except (LookupError, TypeError, AttributeError) as error:
        raise NoReplyError("the reply is not a chat completion") from error
    if ended == "content_filter":
        raise NoReplyError("the reply was withheld (content_filter)")
    said = without_reasoning(text) if isinstance(text, str) else ""
    why = "the reply is only reasoning" if reasoning or text else "the reply has no text"
    return Reply(said, ended == "length", model, "" if said else why)


def without_reasoning(text: str) -> str:
    """Return a text without what stands before ``</think>``; empty if the thought has no end."""
    said = text.rpartition(_THOUGHT)[2]
    return "" if _THINKS in said else said.strip()
