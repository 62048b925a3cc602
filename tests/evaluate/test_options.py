"""What a plan refuses before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from rilbench.checkpoint import Checkpoint, Labels
from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import EvalOptions


def plan(**changes: Any) -> EvalOptions:
    return EvalOptions(**{"suite": "nano", "data": Path("data"), "work": Path("work")} | changes)


def model(model_type: str) -> Checkpoint:
    return Checkpoint(Path("m"), "f" * 16, model_type, Labels("s", "base", "none"))


def test_prompts_are_the_datasets_unless_the_models_are_wanted() -> None:
    assert plan().style([model("llava")]) is None
    own = plan(prompt="model")
    assert own.style([model("qwen2_5_vl"), model("qwen2_vl")]) == "qwen2_vl"
    assert own.style([model("internvl")]) == "internvl"


@pytest.mark.parametrize(
    ("changes", "types", "words"),
    [
        ({}, ["llava"], "no prompts for llava, only for qwen2_vl"),
        ({}, ["qwen2_vl", "internvl"], "needs models of one family"),
        ({"kit": "lmms-eval"}, ["qwen2_vl"], "lmms-eval has no prompts for qwen2_vl"),
    ],
)
def test_prompts_that_a_kit_does_not_have(
    changes: dict[str, str], types: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        plan(prompt="model", **changes).style([model(each) for each in types])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "mine"}, "no prompts 'mine'; there is dataset, model"),
        ({"engine": "magic"}, "no engine 'magic'"),
        ({"engine": "batch", "endpoint": "http://x/v1"}, "leave out the endpoint"),
        ({"max_tokens": 0}, "give 1 or more"),
        ({"batch": 0}, "give 1 or more"),
        ({"concurrency": 0}, "give 1 or more"),
    ],
)
def test_settings_that_do_not_exist(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(**changes)


def test_a_server_of_the_users_gets_more_at_a_time() -> None:
    assert plan().in_flight == 4
    assert plan(endpoint="http://127.0.0.1:1/v1").in_flight == 32
    assert plan(endpoint="http://127.0.0.1:1/v1", concurrency=2).in_flight == 2


def test_the_kit_and_the_judge_decide_what_can_be_scored() -> None:
    with pytest.raises(UserError, match="unknown kit 'mine'; choose from vlmevalkit, lmms-eval"):
        plan(kit="mine").chosen()
    for kit in ("vlmevalkit", "lmms-eval"):
        with pytest.raises(UserError, match="MathVista, MM-Vet, MM-Vet-v2 need a language model"):
            plan(kit=kit, suite="paper").chosen()
        judge = Judge("http://127.0.0.1:1/v1")
        chosen = plan(kit=kit, suite="paper", judge=judge, benchmarks=("BLINK",)).chosen()
        assert [b.kit for b in chosen.benchmarks] == [kit]
        assert chosen.max_tokens == 2048
