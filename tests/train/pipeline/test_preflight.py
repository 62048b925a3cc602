"""The judge's part of the preflight."""

import json

import pytest
from fake_judge import fake_judge, says

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.pipeline.preflight import check_judge, probe_judge


def recipe(url, *more, model="judge"):
    settings = [f"judge.url={url}", f"judge.model={model}", *more]
    return load_recipe("both", "nano", None, settings)


def test_a_judge_by_name_needs_its_address():
    with pytest.raises(UserError, match=r"judge\.url"):
        check_judge(recipe("", model="Qwen/Qwen2.5-32B-Instruct"))


def test_a_judge_that_answers_is_asked_for_one_verdict():
    with fake_judge(lambda _: says("Right. <answer>1</answer>")) as judge:
        probe_judge(recipe(judge.url))
        assert len(judge.seen) == 1
        probe_judge(recipe(judge.url, "method=sft", "sft.steps=1"))
        assert len(judge.seen) == 1, "SFT needs none"
    probe_judge(load_recipe("both", "nano"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: says("I would rather not."), "I would rather not"),
        (lambda _: (404, json.dumps({"error": "no such model"}).encode()), "HTTP 404.*no such"),
    ],
)
def test_a_judge_without_a_verdict_is_refused(answer, words):
    with fake_judge(answer) as judge, pytest.raises(UserError, match=words) as told:
        probe_judge(recipe(judge.url))
    assert "judge.url" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_judge_that_is_down_is_refused():
    for model in ("judge", "rule"):
        with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1"):
            probe_judge(recipe("http://127.0.0.1:9/v1", model=model))
