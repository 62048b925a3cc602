"""The one reading of a chat completion: what a model answered, and why that is none.

Models under evaluation, teachers, judges in training and the kits' judges are all read here, so
that a reply that is no answer is taken for one nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rilbench.printable import valid_text

EMPTY = "empty"
"""The server returned no text."""
ONLY_REASONING = "only reasoning"
"""The model came to no word after its reasoning."""
REFUSAL = "refusal"
"""The message is the API's refusal. One in the answer's own words is an answer."""
TOOL_CALL = "tool call"
"""The model called a tool instead."""
CONTENT_FILTER = "content_filter"
"""The server withheld the answer, or broke it off, for its content."""
CUT = "cut"
"""The reply ended before its first word, or the server gave it up."""
CAUSES = (EMPTY, ONLY_REASONING, REFUSAL, TOOL_CALL, CONTENT_FILTER, CUT)
"""Why a reply is no answer."""

UNANSWERED = "\u2298\u2298\u2298"
"""What a kit gets for an answer where there is none: no letter, digit or word of an option."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""Fields of a request that limit the reply; servers know one or the other."""

_FAILED = "error: "
_GIVEN_UP = frozenset({"abort", "error", "cancelled"})
"""Finish reasons of a server that stopped in the middle."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.S)
_TEXT_PARTS = frozenset({"text", "output_text"})
_REASONING_PARTS = frozenset({"thinking", "reasoning"})


class NoCompletionError(ValueError):
    """What the server returned is not a chat completion."""


@dataclass(frozen=True)
class Completion:
    """One reply: its text, ``stop`` or ``length``, token counts, and seconds to get it.

    Where there is none, the finish reason is ``error: `` and why.
    """

    text: str
    """As the server returned it; it may have its reasoning in ``<think>`` tags."""
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    reasoning: str = ""
    """What a thinking model's server returns apart from the text."""
    withheld: str = ""
    """`REFUSAL` or `TOOL_CALL`, where the message is one."""
    model: str = ""
    """The model that replied, as the server calls it."""
    generated_here: bool = False
    """Generated in this process, so that no server can have withheld anything."""

    @property
    def failed(self) -> bool:
        """Whether there is no reply."""
        return self.finish_reason.startswith(_FAILED)

    @property
    def is_cut(self) -> bool:
        """Whether the longest reply was reached, so that the text is not whole."""
        return self.finish_reason == "length"

    @cached_property
    def _split(self) -> tuple[str, str]:
        return split_reasoning(self.text)

    @property
    def answer(self) -> str:
        """The text without its reasoning."""
        return self._split[1]

    @property
    def thoughts(self) -> str:
        """The reasoning, from the text or from apart."""
        return self._split[0] or self.reasoning.strip()

    @property
    def is_silent(self) -> bool:
        """Whether the model itself wrote no word, which is an answer, and a wrong one.

        Behind a server that is only certain of one that ended at once, with one token.
        """
        if self.failed or self.text.strip() or self.reasoning or self.withheld:
            return False
        at_once = self.finish_reason == "stop" and self.completion_tokens == 1
        return self.generated_here or at_once

    @property
    def no_answer(self) -> str:
        """Why the reply is no answer, one of `CAUSES`; empty if it is one or there is none."""
        if self.failed or self.is_silent:
            return ""
        if self.finish_reason.startswith(CONTENT_FILTER):
            return CONTENT_FILTER
        if self.finish_reason in _GIVEN_UP:
            return CUT
        if self.answer.strip():
            return ""
        if self.withheld:
            return self.withheld
        if self.thoughts:
            return ONLY_REASONING
        return CUT if self.is_cut else EMPTY


def failure(why: str) -> Completion:
    """Return the completion that takes the place of a reply that cannot be had."""
    return Completion("", _FAILED + why, 0, 0, 0.0)


def split_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning that a text has in ``<think>`` tags, and the rest of it.

    Some chat templates put ``<think>`` into the prompt, so that the text has only its end. Thoughts
    without an end reach to the end of the text.
    """
    if "<think>" not in text and "</think>" not in text:
        return "", text
    before, _, said = _THOUGHT.sub("", text).rpartition("</think>")
    said, _, unfinished = said.partition("<think>")
    thoughts = (before, *_THOUGHT.findall(text), unfinished)
    return "\n".join(filter(None, map(str.strip, thoughts))), said.lstrip()


def read_completions(reply: Any, seconds: float = 0.0) -> list[Completion]:
    """Return a chat completion's choices, at least one; tokens are each one's share of the count.

    Raises:
        NoCompletionError: it is none.
    """
    try:
        choices, usage = reply["choices"], reply.get("usage") or {}
        choices[0]  # none is no reply
        return [
            _read(
                choice,
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0) // len(choices),
                seconds=seconds,
                model=str(reply.get("model") or ""),
            )
            for choice in choices
        ]
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise NoCompletionError(f"not an OpenAI chat completion: {str(reply)[:200]}") from error


def _read(choice: Any, **counts: Any) -> Completion:
    message = choice["message"]
    texts, thoughts, refusals = _parts(message.get("content"))
    thoughts.append(message.get("reasoning_content") or message.get("reasoning") or "")
    refused = message.get("refusal") or any(refusals)
    called = message.get("tool_calls") or message.get("function_call")
    reason = str(choice.get("finish_reason") or "unknown")
    return Completion(
        text=valid_text("".join(texts)),
        finish_reason=reason,
        reasoning=valid_text("\n".join(filter(None, thoughts))),
        withheld=REFUSAL if refused else TOOL_CALL if called or reason == "tool_calls" else "",
        **counts,
    )


def _parts(content: Any) -> tuple[list[str], list[str], list[str]]:
    """Return a message's texts, thoughts and refusals: its content is a text, null or parts."""
    if content is None or isinstance(content, str):
        return [content or ""], [], []
    if not isinstance(content, list):
        raise TypeError("the content is neither a text nor a list")
    texts, thoughts, refusals = [], [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part["type"] in _TEXT_PARTS:
            texts.append(part["text"] or "")
        elif part["type"] in _REASONING_PARTS:
            inner = part.get(part["type"]) or part.get("text") or ""
            thoughts += _parts(inner)[0]
        elif part["type"] == REFUSAL:
            refusals.append(part.get("refusal") or REFUSAL)
    return texts, thoughts, refusals


def count_causes(causes: Iterable[str]) -> dict[str, int]:
    """Return how often each cause occurs, in the order of `CAUSES`; empty texts do not count."""
    found = list(causes)
    return {cause: found.count(cause) for cause in CAUSES if cause in found}
