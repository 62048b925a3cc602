"""The servers that a run starts: the judge, on which devices, by which command, or why not."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.devices import some_gpus
from rilbench.errors import UserError
from rilbench.plan.servers import judge_line, judge_needs, plan_judge, plan_teacher, starts_judge

STUDENT = "qwen2.5-vl-7b"
JUDGE = "Qwen/Qwen2.5-32B-Instruct"


def recipe_of(*settings, hardware="1x8-80gb-judge", student=STUDENT, method=None):
    return load_recipe("both", student, method, settings, hardware)


def test_a_profile_leaves_devices_for_the_judge():
    recipe = recipe_of("judge.serve=--max-model-len 8192")
    assert starts_judge(recipe)
    assert judge_needs(recipe) == ""
    server = plan_judge(recipe, JUDGE)
    assert (server.tensor_parallel, server.data_parallel) == (2, 2)
    teacher = plan_teacher(recipe, "72b", recipe.teachers.models["72b"])
    assert (teacher.tensor_parallel, teacher.data_parallel) == (4, 2), "on all 8, before the loop"
    command = shlex.split(judge_line(recipe).rsplit(": ", 1)[1])
    assert command[command.index("--served-model-name") + 1] == JUDGE
    assert command[-2:] == ["--max-model-len", "8192"]
    assert recipe.fingerprint == recipe_of().fingerprint, "how it runs"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (recipe_of(hardware="1x8-80gb"), "1x8-80gb trains on all 8 devices; leave some"),
        (recipe_of(hardware="1-gpu-80gb"), "is not started: the one device trains; serve it"),
        (recipe_of("hardware.judge_devices=1", "hardware.memory_gib=40"), "is 61 GiB in bf16"),
        (recipe_of(hardware="4x8-80gb"), "on a single node, without a Ray of yours; serve it"),
        (recipe_of("hardware.ray_address=auto"), "on a single node"),
        (recipe_of(hardware="1x8-80gb", method="gad"), "or set judge.model=rule, as method=gad"),
        (
            recipe_of(f"judge.model={JUDGE}", student="nano", hardware=None),
            "needs an address: --set judge.url=URL",
        ),
    ],
)
def test_a_judge_that_cannot_be_started_is_one_line_with_a_remedy(recipe, words):
    assert words in judge_needs(recipe)
    assert judge_needs(recipe) in judge_line(recipe) or not starts_judge(recipe)


def test_no_judge_is_started_where_none_is_needed():
    for settings in ("judge.url=http://j/v1", "judge.model=rule"):
        assert not starts_judge(recipe_of(settings))
        assert judge_needs(recipe_of(settings)) == ""
    assert not starts_judge(recipe_of("sft.steps=1", method="sft"))
    assert judge_line(recipe_of("judge.url=http://j/v1")) == f"judge: {JUDGE}, asked at http://j/v1"
    with pytest.raises(UserError, match="judge_devices needs GPUs"):
        recipe_of("hardware.judge_devices=1", student="nano", hardware=None)


def test_plan_and_dry_run_print_its_command_line():
    options = ["--recipe", "both", "--hardware", "1x8-80gb-judge"]
    line = judge_line(recipe_of())
    dry = CliRunner().invoke(app, ["train", *options, "--dry-run"]).stdout
    assert dry.splitlines()[-1] == f"# {line}"
    planned = json.loads(CliRunner().invoke(app, ["plan", *options, "--format", "json"]).stdout)
    assert planned["judge_server"] == line
    assert not any("judge" in warning for warning in planned["warnings"])


def test_gpus_are_shared_out_of_those_that_are_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (some_gpus(0, 6), some_gpus(6, 2)) == ("0,1,2,3,4,5", "6,7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5,7")
    assert (some_gpus(0, 2), some_gpus(2, 1)) == ("3,GPU-5", "7")
