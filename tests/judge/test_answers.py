"""What a text gives as its answer."""

import time

import pytest

from rilbench.judge.answers import boxed, chosen_option, options_of, plain_forms, stated_answer


@pytest.mark.parametrize(
    ("text", "answer", "is_marked"),
    [
        (r"So \boxed{3}.", "3", True),
        (r"\boxed{\frac{1}{2}} and then \boxed{\text{a} {b}}", r"\text{a} {b}", True),
        (r"\boxed{3} or \boxed{4", "3", True),
        (r"\boxed{a \} b}", r"a \} b", True),
        ("<think>\\boxed{4}</think>\n<answer>3</answer>", "3", True),
        ("<answer>4</answer> no: <answer> \\boxed{3} </answer>", "3", True),
        ("<answer>The answer is 3.</answer>", "3", True),
        ("The answer is **West Virginia**.", "West Virginia", True),
        ("I count the dots.\nThere are 3.\n", "There are 3", False),
        ("<think>The answer is 4", "4", True),
        ("(3, 4)", "(3, 4)", False),
        ("", "", False),
    ],
)
def test_stated_answer(text: str, answer: str, is_marked: bool) -> None:
    assert stated_answer(text) == (answer, is_marked)


def test_no_box_is_none() -> None:
    assert boxed("3") is None
    assert boxed(r"\boxed{3") is None


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        ("Which?\nA. red\nB. blue\n", "AB"),
        ("Which?\n(A) 40\n(B) 42\n(C) 44", "ABC"),
        ("Which? (A) red (B) blue", "AB"),
        ("Which?\nA. red", ""),
        ("Which?\nA. red\nC. blue", ""),
        ("See (A) and then?", ""),
    ],
)
def test_options_of_a_question(question: str, letters: str) -> None:
    assert "".join(options_of(question)) == letters


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A", "A"),
        ("(b)", "B"),
        ("option A", "A"),
        (r"\text{B}", "B"),
        ("A. red", "A"),
        ("(B) The Blue", "B"),
        ("blue", "B"),
        ("A. blue", None),
        ("A or B", None),
        ("A, B", None),
        ("green", None),
        ("", None),
    ],
)
def test_chosen_option(answer: str, letter: str | None) -> None:
    assert chosen_option(answer, {"A": "red", "B": "blue"}) == letter


@pytest.mark.parametrize(
    ("reference", "forms"),
    [
        (r"\boxed{3}", ["3"]),
        ("<answer>B</answer>", ["B"]),
        ("A. West Virginia", ["A", "West Virginia"]),
        ("42 apples", ["42"]),
        ("$7$", ["7"]),
        ("7", ["7"]),
        ("red car", ["red car"]),
    ],
)
def test_plain_forms_of_a_gold(reference: str, forms: list[str]) -> None:
    assert plain_forms(reference) == forms


@pytest.mark.parametrize(
    "unit", ["<answer>", r"\boxed{", "{", "}", "(A) ", "A. x\n", "$", "</think>"]
)
def test_long_texts_take_no_time(unit: str) -> None:
    start = time.perf_counter()
    stated_answer(unit * 20_000)
    options_of(unit * 20_000)
    chosen_option(unit * 20_000, {"A": "x"})
    assert time.perf_counter() - start < 2.0
