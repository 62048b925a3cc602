"""The second reading of choices: forms that users of VLMEvalKit report as unread."""

# ruff: noqa: RUF001  The full-width marks are what is tested.

import pytest

from rilbench.evaluate.kits.worker_common import unread
from rilbench.evaluate.plain_choices import read_plainly


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "B。",
        "（B）",
        "Ｂ",
        "B、green",
        "'B'",
        "**B**",
        "**Answer:** B",
        "答案：B",
        "答案是B。",
        "答案应该是 B",
        "正确答案是（B）。",
        "应该选择B选项",
        "选项B",
        "B选项：绿色",
        "<answer>B</answer>",
        r"$\boxed{\text{B}}$",
        "B: green",
        "B - green",
        "B because it is green.",
        "B\n\nI am sure.",
        "B B B B B",
        "Answer: B\n\nExplanation: A would be red.",
        "The correct option is B because the box is green and not red, blue or pink.",
        "A box is shown, and it is green, so B",
        "The answer is not A, it is B.",
        "I think it is B",
        "A: red\nB: green\nC: blue\nD: pink\nAnswer: B",
    ],
)
def test_a_choice_in_a_plain_form_is_read(text: str) -> None:
    assert read_plainly(text, "ABCD") == "B"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "E",
        "Z",
        "green",
        "A or B",
        "选A或B",
        "The answer is A or B",
        "I cannot answer.",
        "A box is green.",
        "I think A box is shown",
        "The answer is a box.",
        "A: red\nB: green\nC: blue",
        "I choose A, or I choose C.",
    ],
)
def test_what_names_no_option_or_several_is_not(text: str) -> None:
    assert read_plainly(text, "ABCD") is None


def test_only_an_option_of_the_question_counts() -> None:
    assert read_plainly("I", "ABCDEFGHIJ") == "I"
    assert read_plainly("I", "ABCD") is None


@pytest.mark.parametrize(
    ("read", "is_unread"),
    [("", True), ("B", False), ("A", False), ("B ", True), (" B", True), ("A ", False)],
)
def test_a_question_is_unread_if_nothing_else_makes_it_wrong(read: str, is_unread: bool) -> None:
    """Each letter is what the rules read in one rotation, whose gold is B; a space is nothing."""
    choices = [{"read": letter.strip(), "gold": "B"} for letter in read or " "]
    assert unread(choices) is is_unread
