"""What the plan and the dry run say about teachers: tokens, price, and servers with their order."""

import json
import shlex

import pytest
import yaml
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.plan.assumptions import assume
from rilbench.plan.servers import plan_teacher
from rilbench.plan.teachers import plan_tokens, teacher_lines

STUDENT = "qwen2.5-vl-7b"


def recipe_of(*settings, recipe="both", hardware=None):
    return load_recipe(recipe, STUDENT, None, settings, hardware)


def test_tokens_and_price_count_a_shared_prompt_once():
    price = "collection.price.72b=[0.5, 2]"
    plain, fields = recipe_of(price), "collection.fields.72b={max_tokens: 2048, n: 4}"
    assumed = assume(plain, ["questions=1000", "prompt_tokens=1000", "response_tokens=500"])
    first, second = plan_tokens(plain, assumed).values()
    assert (first.responses, first.prompt_tokens, first.response_tokens) == (16_000, 16e6, 8e6)
    assert first.price == pytest.approx(16 * 0.5 + 8 * 2)
    assert second.price is None
    shared = plan_tokens(recipe_of(price, fields), assumed)["72b"]
    assert (shared.prompt_tokens, shared.response_tokens) == (4e6, 8e6)
    assert shared.price == pytest.approx(4 * 0.5 + 8 * 2)


@pytest.mark.parametrize(
    ("hardware", "layout"), [("1x8-80gb", (4, 2)), ("1x8-141gb", (2, 4)), ("4x8-80gb", (4, 2))]
)
def test_a_72b_is_divided_as_little_as_it_fits_and_copied(hardware, layout):
    recipe = recipe_of(hardware=hardware)
    for name, model in recipe.teachers.models.items():
        server = plan_teacher(recipe, name, model)
        assert (server.tensor_parallel, server.data_parallel) == layout
        assert 30 * 60 < server.start_limit < 45 * 60
    small = plan_teacher(recipe, "72b", "Qwen/Qwen2.5-VL-7B-Instruct")
    assert (small.tensor_parallel, small.data_parallel) == (1, 8)
    assert small.start_limit < 15 * 60
    unknown = plan_teacher(recipe, "72b", "Some/Other-Model")
    assert (unknown.tensor_parallel, unknown.data_parallel) == (8, 1)


@pytest.mark.parametrize(("devices", "layout"), [(6, (4, 1)), (7, (4, 1)), (4, (4, 1))])
def test_a_number_that_the_heads_do_not_divide_among_leaves_devices_idle(devices, layout):
    recipe = recipe_of(f"hardware.devices={devices}")
    for model in ("Qwen/Qwen2.5-VL-72B-Instruct", "Some/Other-Model"):
        server = plan_teacher(recipe, "72b", model)
        assert (server.tensor_parallel, server.data_parallel) == layout


def test_the_lines_say_what_is_started_when():
    lines = teacher_lines(
        recipe_of("collection.serve.72b=--max-model-len 16384"), assume(recipe_of())
    )
    started = [line for line in lines if "started" in line]
    assert [line.split(",")[0] for line in started] == [
        "72b: started first",
        "78b: started after 72b",
    ]
    command = shlex.split(started[0].rsplit(": ", 1)[1])
    assert command[:2] == ["python", "-m"]
    for option, value in (
        ("serve", "Qwen/Qwen2.5-VL-72B-Instruct"),
        ("--tensor-parallel-size", "4"),
        ("--data-parallel-size", "2"),
        ("--generation-config", "vllm"),
        ("--max-model-len", "16384"),
    ):
        assert command[command.index(option) + 1] == value
    asked = teacher_lines(
        recipe_of("collection.endpoints.72b=[http://a/v1, http://b/v1]", recipe="72b"),
        assume(recipe_of()),
    )
    assert asked[-1] == "72b: asked at http://a/v1, http://b/v1"


def test_plan_and_dry_run_tell_them(tmp_path):
    (tmp_path / "78b.parquet").touch()
    settings = ("collection.price.72b=[0.5, 2]", f"collection.folder={tmp_path}")
    options = ["--recipe", "both", "--student", STUDENT]
    options += [word for setting in settings for word in ("--set", setting)]
    dry = CliRunner().invoke(app, ["train", *options, "--dry-run"]).stdout
    assert yaml.safe_load(dry)["collection"]["price"] == {"72b": [0.5, 2.0]}
    told = [line for line in dry.splitlines() if line.startswith("# collect ")]
    assert "655 M prompt and 328 M response tokens (price 983.04)" in told[0]
    assert "--tensor-parallel-size 4" in told[1]
    assert told[3] == f"# collect 78b: only what {tmp_path}/78b.parquet lacks is collected"
    planned = json.loads(CliRunner().invoke(app, ["plan", *options, "--format", "json"]).stdout)
    assert planned["teachers"]["72b"]["price"] == pytest.approx(983.04)
    assert [f"# collect {line}" for line in planned["teacher_servers"]] == told
    assert "collect: 72b" not in planned["gpu_hours"], "it is paid for by tokens"
    assert planned["gpu_hours"]["collect: 78b"] > 0
    shown = CliRunner().invoke(app, ["plan", *options]).stdout
    assert "price 983.04" in shown


def test_nano_teachers_are_served_side_by_side():
    lines = teacher_lines(load_recipe("both", "nano"), assume(load_recipe("both", "nano")))
    started = [line for line in lines if "started" in line]
    assert all("started beside the others" in line for line in started)
    assert all("-m rilbench.model.server nano:" in line for line in started)


def test_a_method_without_teachers_tells_nothing():
    alone = load_recipe("both", STUDENT, "dr-grpo")
    assert teacher_lines(alone, assume(alone)) == []
