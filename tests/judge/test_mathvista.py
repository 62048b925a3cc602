"""Reading VLMEvalKit's MathVista prompt. The prompt below is the kit's, as version 0.0.20 sends it,
with two of its five examples.
"""

import pytest

from rilbench.judge.mathvista import read_mathvista_prompt
from rilbench.judge.mmvet import read_mmvet_prompt
from rilbench.judge.rules import extract

HEAD = """
Please read the following example.
Then extract the answer from the model response and type it at the end of the prompt.


Hint: Please answer the question requiring an integer answer and provide the final value,
e.g., 1, 2, 3, at the end.

Question: Which number is missing?

Model response: The number missing in the sequence is 14.

Extracted answer: 14


Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.

Question: What fraction of the shape is blue?

Choices: (A) 3/11 (B) 8/11 (C) 6/11 (D) 3/5

Model response: The correct answer is (B) 8/11.

Extracted answer: B

"""  # noqa: E501
INTEGER = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, "
    "e.g., 1, 2, 3, at the end.\nQuestion: How many?"
)
NUMBER = INTEGER.replace("an integer answer", "a floating-point number with one decimal place")
LETTER = (
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at "
    "the end.\nQuestion: How many?\nChoices:\n(A) 1\n(B) 12\n(C) two"
)


def prompt(question: str, response: str) -> str:
    return HEAD + question + "\nModel respone: " + response + "Extracted answer:"


@pytest.mark.parametrize(
    "response", ["7", "", "a\nb | c", "Model respone: 3", "\nModel respone: 3", "Extracted answer:"]
)
def test_what_went_in_comes_out(response: str) -> None:
    for question in (INTEGER, NUMBER, LETTER):
        assert read_mathvista_prompt(prompt(question, response)) == (question, response)


def test_other_prompts_are_not_mathvistas() -> None:
    whole = prompt(INTEGER, "7")
    assert read_mmvet_prompt(whole) is None
    for text in ("", "hello", HEAD, whole.removesuffix("Extracted answer:"), whole[200:]):
        assert read_mathvista_prompt(text) is None


@pytest.mark.parametrize(
    ("question", "response", "answer"),
    [
        (INTEGER, "7", "7"),
        (INTEGER, "We see 3 and 4. 3 + 4 = 7.", "7"),
        (INTEGER, "3 + 4 = 8. Answer: 7, as 3 is the least", "7"),
        (INTEGER, "Answer: 7.0", "7"),
        (INTEGER, "Answer: 7.5", "7.5"),
        (INTEGER, "The answer is \u22127", "-7"),
        (INTEGER, "12-5", "5"),
        (INTEGER, "1,200 apples", "1200"),
        (INTEGER, "many", "Z"),
        (INTEGER, "", "Z"),
        (INTEGER, "inf", "Z"),
        (INTEGER, "9" * 400, "Z"),
        (NUMBER, "It is .5", ".5"),
        (NUMBER, "Answer: $1.50", "1.50"),
        (NUMBER, "b2 or x3", "Z"),
        (LETTER, "A is not it. Answer: B", "B"),
        (LETTER, "Not (A). The answer is (B) 12.", "B"),
        (LETTER, "Answer: 12", "B"),
        (LETTER, "TWO", "C"),
        (LETTER, "Answer: D", "D"),
        (LETTER, "Answer: 13", "13"),
        (LETTER, "", "Z"),
        ("What is it?", "Answer: a cat.", "a cat"),
    ],
)
def test_the_final_answer_in_the_form_that_the_hint_asks_for(
    question: str, response: str, answer: str
) -> None:
    assert extract(question, response) == answer
