"""The exact judge's rules, case by case."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rilbench.judge.rules import final_answer, grade, is_right


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        ("  B. \n", "B"),
        ("(B)", "B"),
        ("The answer is (B).", "B"),
        ("Answer: 3. No, the answer is 4.", "4"),
        ("ANSWER : cat!", "cat"),
        ("**Answer:** 12", "12"),
        ("**Answer**: **12**", "12"),
        ("The answer is: -3.5.", "-3.5"),
        ("answer is .5", ".5"),
        ("I see three red dots", "I see three red dots"),
        ("Unanswered: yes", "Unanswered: yes"),
        ("answer:", ""),
        ("", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("truth", "response", "right"),
    [
        ("B", "B", True),
        ("B", "b.", True),
        ("B", "(B)", True),
        ("B", "I think so. The answer is B.", True),
        ("B", "A or B", False),
        ("B", "", False),
        ("(B)", "B", True),
        ("yes", "Yes.", True),
        ("yes", "yes or no", False),
        ("3 red dots", "Answer: 3 Red Dots.", True),
        # Numbers: ChartQA's 5 %.
        ("100", "105", True),
        ("100", "105.1", False),
        ("100", "95", True),
        ("100", "94.9", False),
        ("-100", "-104", True),
        ("-100", "100", False),
        ("0", "0.0", True),
        ("0", "0.001", False),
        ("1,200", "The answer is 1210", True),
        ("1200", "1,200.", True),
        ("45%", "0.45", True),
        ("7", "seven", False),
        ("7", "7 apples", False),
        ("7", "nan", False),
        ("7", "inf", False),
        ("-5", "\u22125", True),
        # <AND> and <OR>.
        ("3 <AND> red", "It is RED, and there are 3.", True),
        ("3 <AND> red", "There are 3.", False),
        ("3 <AND> red", "There are 35 red ones.", False),
        ("red<OR>green", "Answer: Green.", True),
        ("red<OR>green", "red or green", False),
        ("A<OR>yes", "yes", True),
        ("A<OR>yes", "9 is larger: yes (B). Answer: B", False),
        ("red<OR>green", "A greenish one.", False),
        ("a <AND> b <OR> c <AND> d", "c, d", True),
        ("a <AND> b <OR> c <AND> d", "a, d", False),
    ],
)
def test_is_right(truth: str, response: str, right: bool) -> None:
    assert is_right(truth, response) is right


@pytest.mark.parametrize(
    ("truth", "response", "score"),
    [
        # The examples of MM-Vet's own prompt.
        ("-1 <AND> -5", "x = 3", 0.0),
        ("-1 <AND> -5", "x = -1", 0.5),
        ("-1 <AND> -5", "x = -5 or 5", 0.5),
        ("-1 <AND> -5", "x = -1 or x = -5", 1.0),
        ("1 <AND> 2 <AND> 3", "1 and 2", 0.7),
        ("1 <AND> 2 <AND> 3", "3", 0.3),
        ("1 <AND> 2 <OR> 9", "9", 1.0),
        ("1 <AND> 2 <OR> 8 <AND> 9 <AND> 7", "2, 8, 9", 0.7),
        ("5", "-5", 0.0),
        ("5", "from 3-5", 1.0),
        ("5", "5.5", 0.0),
        ("300", "1,300", 0.0),
        ("1,300", "about 1300 of them", 1.0),
        ("red dots", "two red dots", 1.0),
        ("red dots", "red and dots", 0.0),
        ("cat", "concatenate", 0.0),
        ("\u7ea2\u8272", "\u8fd9\u662f\u7ea2\u8272\u7684", 1.0),
        ("3", "\u67093.5\u4e2a", 0.0),
        ("+", "1 + 1", 1.0),
        ("+", "1 - 1", 0.0),
    ],
)
def test_grade(truth: str, response: str, score: float) -> None:
    assert grade(truth, response) == score


@pytest.mark.parametrize("truth", ["", " ", "<AND>", " <OR> "])
def test_an_empty_truth_is_refused(truth: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        grade(truth, "anything")
    with pytest.raises(ValueError, match="empty"):
        is_right(truth, "anything")


@given(st.text(), st.text())
def test_grades_are_tenths_and_a_response_contains_itself(truth: str, response: str) -> None:
    if truth.strip() and "<AND>" not in truth and "<OR>" not in truth:
        assert grade(truth, response) in {i / 10 for i in range(11)}
        assert grade(truth, truth) == 1.0
        assert is_right(truth, truth)


@pytest.mark.parametrize("unit", ["answer", "answer ", " ", "<answer>", "1,", "1", "-", "_"])
def test_long_responses_take_no_time(unit: str) -> None:
    start = time.perf_counter()
    is_right("7", unit * 20_000)
    grade("7 <AND> 8", unit * 20_000)
    assert time.perf_counter() - start < 2.0
