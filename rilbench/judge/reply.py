"""A judge's reply, read as every other model's."""

from __future__ import annotations

import json
from typing import Any

from rilbench.serving.reply import Completion, NoCompletionError, read_completions
from rilbench.serving.transport import NoReplyError

_TELLS_CONTENT = ("root", "revision")
"""Fields of a listed model that say what stands behind its name, in vLLM and others."""


def read_reply(content: bytes) -> Completion:
    """Read a judge's reply, which may be cut or no answer.

    Raises:
        ValueError: it is not JSON.
        NoReplyError: it is not a chat completion.
    """
    try:
        return read_completions(json.loads(content))[0]
    except (NoCompletionError, RecursionError) as error:
        raise NoReplyError(f"the reply is not a chat completion: {content[:200]!r}") from error


def answer_of(reply: Completion) -> str:
    """Return what a judge says, without its reasoning.

    Raises:
        NoReplyError: it says nothing.
    """
    if reply.no_answer:
        raise NoReplyError(f"the reply is no answer: {reply.no_answer}")
    return reply.answer.strip()


def told_content(listing: Any, judge: str) -> dict[str, str]:
    """Return what a server's list of models tells about the model behind a judge's name."""
    try:
        entry = next(model for model in listing["data"] if model.get("id") == judge)
    except (LookupError, TypeError, AttributeError, StopIteration):
        return {}  # Many servers of an API list no models.
    return {key: str(entry[key]) for key in _TELLS_CONTENT if entry.get(key)}
