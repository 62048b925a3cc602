"""What the options refuse before anything is started."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rilbench.checkpoint import Checkpoint, Labels
from rilbench.errors import UserError
from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import EvalOptions, read_options


def options(**changes: Any) -> EvalOptions:
    return EvalOptions(**{"suite": "nano", "data": Path("data"), "work": Path("work")} | changes)


def model(model_type: str) -> Checkpoint:
    return Checkpoint(Path("m"), "f" * 16, model_type, Labels("s", "base", "none"))


def test_prompts_are_the_datasets_own_unless_the_models_are_chosen() -> None:
    assert options().style([model("llava")]) is None
    of_model = options(prompt="model")
    assert of_model.style([model("qwen2_5_vl"), model("qwen2_vl")]) == "qwen2_vl"
    assert of_model.style([model("internvl")]) == "internvl"


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
        options(prompt="model", **changes).style([model(name) for name in types])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "mine"}, "unknown --prompt 'mine'; choose from dataset, model"),
        ({"engine": "magic"}, "unknown --engine 'magic'; choose from server, batch"),
        ({"engine": "batch", "endpoint": "http://x/v1"}, "needs no server; leave out --endpoint"),
        ({"max_tokens": 0}, "--max-tokens must be at least 1, not 0"),
        ({"batch": 0}, "the batch size must be at least 1, not 0"),
        ({"concurrency": 0}, "--concurrency must be at least 1, not 0"),
        ({"concurrency": 8, "engine": "batch"}, "the engine batch asks none; leave it out"),
        ({"start_limit": 60, "engine": "batch"}, "--start-limit is .* starts none; leave it out"),
        ({"start_limit": 60, "endpoint": "http://x/v1"}, "--start-limit is .* starts none"),
    ],
)
def test_unknown_or_impossible_values_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        options(**changes)


def test_options_of_the_server_are_split_as_a_shell_does() -> None:
    for text in ("'x", '"', "--max-model-len 16384 \\"):
        with pytest.raises(UserError, match=r"--server-args .* is not understood .*the quotes"):
            read_options(server_args=text)
    with pytest.raises(UserError, match="unknown --max-tokens '9999"):
        read_options(max_tokens="9" * 5000)


def test_the_kit_and_the_judge_decide_what_can_be_scored() -> None:
    with pytest.raises(UserError, match="unknown kit 'mine'; choose from vlmevalkit, lmms-eval"):
        options(kit="mine").chosen()
    for kit in ("vlmevalkit", "lmms-eval"):
        with pytest.raises(UserError, match="MathVista, MM-Vet, MM-Vet-v2 need a language model"):
            options(kit=kit, suite="paper").chosen()
        judge = Judge("http://127.0.0.1:1/v1")
        chosen = options(kit=kit, suite="paper", judge=judge, benchmarks=("BLINK",)).chosen()
        assert [b.kit for b in chosen.benchmarks] == [kit]
        assert chosen.max_tokens == 2048


def test_the_settings_of_the_kits_entry_for_a_model(tmp_path: Path) -> None:
    """As in VLMEvalKit's config.py, and its class for these models; lmms-eval sets others."""
    qwen = replace(model("qwen2_5_vl"), path=tmp_path)
    (tmp_path / "generation_config.json").write_text('{"repetition_penalty": 1.05}')
    named = "min_pixels the processor decides (vlmevalkit: 1003520), max_pixels the processor "
    named += "decides (vlmevalkit: 12845056), repetition_penalty 1.05 (vlmevalkit: 1.0)"
    assert options().unlike_kit(qwen) == named
    assert options().unlike_kit(model("llava")) == ""
    found = options(model_settings="kit").with_model_settings([qwen])
    assert (found.pixels, found.repetition_penalty) == (Pixels(1280 * 784, 16384 * 784), 1.0)
    assert found.unlike_kit(qwen) == ""
    cross = options(model_settings="kit", kit="lmms-eval").with_model_settings([qwen])
    assert (cross.pixels, cross.repetition_penalty) == (Pixels(200704, 1605632), None)
    with pytest.raises(UserError, match="no --model-settings kit for internvl that a server takes"):
        options(model_settings="kit").with_model_settings([model("internvl")])
    assert options().with_model_settings([model("internvl")]) == options()
