"""The one reading of a reply: what models, judges and teachers answer, and why that is none."""

import json
from typing import Any

import pytest

from rilbench.judge.reply import answer_of, read_reply
from rilbench.serving.reply import (
    CAUSES,
    Completion,
    NoCompletionError,
    failure,
    read_completions,
    split_reasoning,
)
from rilbench.serving.transport import NoReplyError


def completion(message: dict[str, Any], ended: str | None = "stop", tokens: int = 5) -> Any:
    choice = {"message": message, "finish_reason": ended}
    return {"model": "m", "choices": [choice], "usage": {"completion_tokens": tokens}}


def read(message: dict[str, Any], ended: str | None = "stop", tokens: int = 5) -> Completion:
    return read_completions(completion(message, ended, tokens))[0]


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, "B", {"type": "image"}]


@pytest.mark.parametrize(
    ("message", "answer", "thoughts"),
    [
        ({"content": "B"}, "B", ""),
        ({"content": " B\n"}, " B\n", ""),
        ({"content": "<think>\nA?\n</think>\n\nB"}, "B", "A?"),
        ({"content": "A?</think>B"}, "B", "A?"),  # <think> is in the prompt
        ({"content": "<think>A?</think>B<think>or A"}, "B", "A?\nor A"),
        ({"content": "B", "reasoning_content": "A?"}, "B", "A?"),
        ({"content": [{"type": "text", "text": "B"}]}, "B", ""),
        ({"content": PARTS}, "B", "hm"),
        ({"content": "B", "tool_calls": [{"id": "1"}]}, "B", ""),
        ({"content": "B", "refusal": None, "tool_calls": []}, "B", ""),
    ],
)
def test_reasoning_is_no_part_of_the_answer(
    message: dict[str, Any], answer: str, thoughts: str
) -> None:
    found = read(message)
    assert (found.answer, found.thoughts, found.no_answer) == (answer, thoughts, "")


@pytest.mark.parametrize(
    ("message", "ended", "cause"),
    [
        ({"content": None}, "stop", "empty"),
        ({"content": "  "}, None, "empty"),
        ({"content": []}, "stop", "empty"),
        ({}, "stop", "empty"),
        ({"content": None, "reasoning_content": "so B"}, "stop", "only reasoning"),
        ({"content": None, "reasoning": "so B"}, "length", "only reasoning"),
        ({"content": "<think>so B"}, "length", "only reasoning"),
        ({"content": "<think>so B</think>"}, "stop", "only reasoning"),
        ({"content": None, "refusal": "I cannot"}, "stop", "refusal"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "stop", "refusal"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls", "tool call"),
        ({"content": "", "function_call": {"name": "f"}}, "function_call", "tool call"),
        ({"content": None}, "content_filter", "content_filter"),
        ({"content": "half of B"}, "content_filter", "content_filter"),
        ({"content": ""}, "length", "cut"),
        ({"content": "half of"}, "abort", "cut"),
    ],
)
def test_a_reply_that_is_no_answer_says_why(
    message: dict[str, Any], ended: str | None, cause: str
) -> None:
    assert read(message, ended).no_answer == cause
    assert cause in CAUSES
    if ended != "length":
        with pytest.raises(NoReplyError, match=f"no answer: {cause}"):
            answer_of(read_reply(json.dumps(completion(message, ended)).encode()))


def test_an_answer_that_is_cut_is_one_of_a_model_and_none_of_a_judge() -> None:
    found = read({"content": "B is"}, "length")
    assert (found.no_answer, found.is_cut) == ("", True)


def test_silence_of_the_model_itself_is_an_answer() -> None:
    said = read({"content": ""}, "stop", tokens=1)
    assert (said.is_silent, said.no_answer) == (True, "")
    assert not read({"content": "", "reasoning": "hm"}, "stop", tokens=1).is_silent
    assert not read({"content": "B"}, "stop", tokens=1).is_silent


def test_a_failure_is_neither() -> None:
    assert (failure("no").failed, failure("no").no_answer) == (True, "")


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"choices": []},
        {"choices": [1]},
        "text",
        {"error": {"message": "overloaded"}},
        {"choices": [{"message": {"content": 3}}]},
        {"choices": [{"message": {"content": [3]}}]},
    ],
)
def test_what_is_no_completion_is_said(wrong: Any) -> None:
    with pytest.raises(NoCompletionError, match="not an OpenAI chat completion"):
        read_completions(wrong)
    with pytest.raises(NoReplyError, match="not a chat completion"):
        read_reply(json.dumps(wrong).encode())


def test_a_text_without_tags_stays_as_it_is() -> None:
    assert split_reasoning(" a < b > c\n") == ("", " a < b > c\n")
