"""The estimate of requests and costs."""

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.cost_estimate import cost, estimate, read_price
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.prompts import BenchmarkQuestion
from rilbench.evaluate.suite import find_suite


def question(dataset: str, number: int, group: str = "", pictures: int = 1) -> BenchmarkQuestion:
    parts = [{"type": "image", "path": "x.png"}] * pictures + [{"type": "text", "text": "a" * 40}]
    return BenchmarkQuestion(dataset, str(number), group or str(number), "A", None, tuple(parts))


QUESTIONS = [
    *[question("MMBench_DEV_EN", turn * 1_000_000 + 1, "1") for turn in range(4)],
    question("MMVet", 1, pictures=2),
    question("MMVet", 2),
    question("ChartQA_TEST", 1),
]
SUITE = find_suite("paper").pick(["MMB", "MM-Vet", "ChartQA"])


def test_rotations_are_requests_and_one_question() -> None:
    found = {one.column: one for one in estimate(SUITE, QUESTIONS, Judge("http://x/v1", "m"))}
    mmb, vet, chart = found["MMB"], found["MM-Vet"], found["ChartQA"]
    assert (mmb.questions, mmb.requests, mmb.pictures, mmb.text_tokens) == (1, 4, 4, 40)
    assert (mmb.certain, mmb.possible) == (0, 4)
    assert (vet.certain, vet.possible, vet.pictures) == (2, 2, 3)
    assert (chart.certain, chart.possible, chart.judge_tokens) == (0, 0, 0)


def test_the_rules_read_no_option() -> None:
    found = {one.column: one for one in estimate(SUITE, QUESTIONS, Judge())}
    assert (found["MMB"].possible, found["MM-Vet"].possible) == (0, 2)


def test_the_price_goes_from_the_certain_to_the_possible() -> None:
    found = estimate(SUITE, QUESTIONS, Judge("http://x/v1", "m"))
    low, high = cost(found, (1e6, 0.0))
    assert low == 2 * 1000  # Two prompts of 800 tokens with an answer of 200.
    assert high == low + 4 * 500
    assert cost(found, (0.0, 1e6)) == (80, 240)
    assert read_price("0.15,0.6") == (0.15, 0.6)
    for wrong in ("", "1", "a,b", "1,2,3", "-1,2", "nan,1", "1,inf"):
        with pytest.raises(UserError, match=r"--price .* give IN,OUT"):
            read_price(wrong)


def test_a_question_that_cannot_be_asked_costs_nothing() -> None:
    broken = [BenchmarkQuestion("MMVet", "3", "3", "A", None, (), "its picture cannot be read")]
    assert estimate(SUITE, [*QUESTIONS, *broken], Judge()) == estimate(SUITE, QUESTIONS, Judge())


def test_pictures_have_tokens_and_absent_files_their_published_numbers() -> None:
    tokens = {q.key: 1000 for q in QUESTIONS}
    found = {one.column: one for one in estimate(SUITE, QUESTIONS, Judge(), tokens, {"MMVet": 218})}
    assert found["MMB"].picture_tokens == 4000
    vet = found["MM-Vet"]
    assert (vet.questions, vet.requests, vet.certain) == (220, 220, 220)
