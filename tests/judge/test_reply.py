"""Replies of judges that reason, that are cut, and that are none."""

from typing import Any

import pytest

from rilbench.judge.reply import read_reply
from rilbench.serving.transport import NoReplyError


def completion(message: dict[str, Any], ended: str | None = "stop") -> dict[str, Any]:
    return {"model": "m", "choices": [{"message": message, "finish_reason": ended}]}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Right. <answer>1</answer>"}, "Right. <answer>1</answer>"),
        ({"content": "<think>\n<answer>0</answer>?\n</think>\n\nYes."}, "Yes."),
        ({"content": "<answer>0</answer>?</think>Yes."}, "Yes."),  # <think> is in the prompt
        ({"content": "Yes.", "reasoning_content": "<answer>0</answer>"}, "Yes."),
    ],
)
def test_thoughts_are_no_part_of_the_reply(message: dict[str, Any], text: str) -> None:
    assert read_reply(completion(message)).text == text


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": None, "reasoning_content": "hm"}, "only reasoning"),
        ({"content": None, "reasoning": "hm"}, "only reasoning"),
        ({"content": "<think>hm <answer>1</answer>"}, "only reasoning"),
        ({"content": None}, "no text"),
        ({"content": ""}, "no text"),
        ({}, "no text"),
    ],
)
def test_a_reply_without_text_says_why(message: dict[str, Any], why: str) -> None:
    reply = read_reply(completion(message))
    assert (reply.text, why in reply.why_empty) == ("", True)


def test_a_reply_that_was_withheld_is_none() -> None:
    with pytest.raises(NoReplyError, match="withheld"):
        read_reply(completion({"content": "Yes."}, "content_filter"))


@pytest.mark.parametrize("wrong", [None, [], {}, {"choices": []}, {"choices": [1]}, "text"])
def test_what_is_no_completion_is_said(wrong: Any) -> None:
    with pytest.raises(NoReplyError, match="not a chat completion"):
        read_reply(wrong)


def test_a_cut_reply_is_told() -> None:
    cut = {"content": None, "reasoning_content": "hm"}
    assert read_reply(completion(cut, "length")).is_cut
    assert read_reply(completion({"content": "<answer>1</answer>"}, "length")).is_cut
    assert not read_reply(completion({"content": "Yes."})).is_cut
