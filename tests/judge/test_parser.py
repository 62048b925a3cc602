"""The judge by math-verify: forms of answers, options, units, and what it must not take."""

import time

import pytest

from rilbench.judge.code_judges import find_judge
from rilbench.judge.parser import is_right

STATES = "Which state?\nA. West Virginia\nB. Ohio\nC. Utah\n"
NUMBERS = "How many?\n(A) 40\n(B) 42"


@pytest.mark.parametrize(
    ("question", "reference", "response"),
    [
        # Forms that training sets of VLM reinforcement learning use.
        ("", "3", r"Three rows. \boxed{3}"),
        ("", r"\boxed{3}", "3"),
        ("", r"\boxed{3}", "<think>4?</think><answer>3</answer>"),
        ("", "<answer>B</answer>", "B"),
        ("", "B", "<think>x</think> B"),
        ("", "B", "**B**"),
        ("", "B", "B. red"),
        ("", "B", "The answer is (B) red"),
        # Options with their text.
        ("", "A. West Virginia", "A"),
        ("", "A. West Virginia", "West Virginia"),
        ("", "A. West Virginia", "The answer is (A) West Virginia."),
        (STATES, "A", "West Virginia"),
        (STATES, "West Virginia", "(a)"),
        (STATES, "(A)", r"\boxed{\text{A}}"),
        (NUMBERS, "B", "42"),
        (NUMBERS, "42", "B"),
        (NUMBERS, "B", "42.0"),
        # Units.
        ("", "42 apples", "42"),
        ("", "42", "42 apples"),
        ("", "12 cm", "12"),
        ("", "12 cm", "120 mm"),
        ("", "12 cm^2", "12 cm²"),
        ("", r"12\text{ cm}", "12 cm"),
        ("", "1,200", "1200 dollars"),
        ("", r"\$5", "5 dollars"),
        ("", "45°", "45 degrees"),
        ("", r"45^\circ", "45"),
        ("", "12%", "12"),
        ("", "12%", "0.12"),
        ("", "5 min", "300 s"),
        # Fractions and formulas.
        ("", "1/2", "0.5"),
        ("", "0.5", r"$\frac{1}{2}$"),
        ("", "3 1/2", "3.5"),
        ("", r"2\sqrt{3}", "2√3"),
        ("", "2π", r"2\pi"),
        ("", "1e3", "1000"),
        ("", "-3", "\u22123"),
        ("", "x^2+1", "1+x^2"),
        ("", "2x", "x+x"),
        ("", "3", "x = 3"),
        ("", "x=3", "3"),
        ("", "42", r"3 \times 14 = 42"),
        ("", "42", "It has 3 rows. So there are 42 apples."),
        # Words.
        ("", "red car", "The red car"),
        ("", "red car", r"\boxed{\text{Red car}}"),
        ("", "1, 2, 3", "1,2,3"),
        ("", "10:30", "10:30"),
        ("", "cat <OR> kitty", "kitty"),
        ("", "7 <AND> 8", "8 and 7"),
    ],
)
def test_right(question: str, reference: str, response: str) -> None:
    assert is_right(question, reference, response)


@pytest.mark.parametrize(
    ("question", "reference", "response"),
    [
        ("", "3", "-3"),
        ("", "3", "three"),
        ("", "0", ""),
        # More answers than one are none.
        ("", "42", "41 or 42 or 43"),
        ("", "42", "The answer is 41, 42"),
        ("", "14", "It has 3 rows of 14"),
        ("", "cat <OR> kitty", "cat kitty"),
        (STATES, "A", "A or B or C"),
        (STATES, "A", "A, B"),
        (STATES, "A", "A. Ohio"),
        (STATES, "A", "<answer>A"),
        (STATES, "A", "Ohio"),
        ("", "A. West Virginia", "B. West Virginia"),
        # Another unit.
        ("", "12 cm", "12 m"),
        ("", "12 cm", "12 kg"),
        ("", "12 m2", "12 m"),
        # What a formula would make equal.
        ("", "5:15", "1/3"),
        ("", "2020-05-01", "2014"),
        ("", "1990-2000", "-10"),
        ("", "2x", "2"),
        ("", "1/3", "0.33"),
        ("", "3.14", r"\pi"),
        ("", "red car", "not red car"),
    ],
)
def test_wrong(question: str, reference: str, response: str) -> None:
    assert not is_right(question, reference, response)


@pytest.mark.parametrize("reference", ["", " ", "<OR>", r"\boxed{}"])
def test_an_empty_truth_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        is_right("", reference, "anything")


def test_it_is_a_judge_whose_name_has_the_librarys_version() -> None:
    judge = find_judge("parser")
    assert judge.model.startswith("rilbench-parser-judge-1/math-verify-")
    assert judge.decide("", r"\boxed{3}", "3") == 1.0
    assert judge.grade("", "7 <AND> 8", "7") == 0.5


@pytest.mark.parametrize("response", [r"\boxed{9^{9^{9^{9}}}}", "9^" * 20_000, r"\frac{" * 20_000])
def test_wild_formulas_take_limited_time(response: str) -> None:
    start = time.perf_counter()
    assert not is_right("", "7", response)
    assert time.perf_counter() - start < 6.0
