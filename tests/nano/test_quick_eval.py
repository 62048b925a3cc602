import numpy as np
import pytest

from rilbench.nano.digits import pools
from rilbench.nano.quick_eval import answer_questions, can_be_opened, worked_share
from rilbench.nano.tasks import STAND_INS, make_question


@pytest.fixture(scope="module")
def questions():
    rng = np.random.default_rng(3)
    return [
        make_question(benchmark, pools()["dev"], rng)[1]
        for benchmark in STAND_INS
        for _ in range(5)
    ]


def test_the_gold_answers_are_worked_ones(questions):
    assert worked_share([(question, question.worked) for question in questions]) == 1


def test_an_opening_never_gives_a_digit_away(questions):
    opened = [question for question in questions if can_be_opened(question, 3)]
    assert 0 < len(opened) < len(questions), "ChartQA's answers begin with one"
    for question in opened:
        assert not any(c.isdigit() for c in " ".join(question.worked.split(" ")[:3]))


def test_a_model_continues_the_opening():
    from rilbench.nano.model import load
    from rilbench.paths import nano_folder

    found = answer_questions(
        *load(nano_folder() / "72b"), pool="dev", questions=1, seed=1, temperature=1.0, opening=3
    )
    assert found
    for question, text in found:
        assert text.startswith(" ".join(question.worked.split(" ")[:3]))
        assert len(text.split(" ")) > 3
