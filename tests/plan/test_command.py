"""`rilbench plan`: every combination, in one process, from files of the tree alone."""

import itertools
import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import METHODS, known, load_recipe
from rilbench.errors import UserError
from rilbench.plan import make_plan
from rilbench.plan.assumptions import Assumptions, assume

RUNNER = CliRunner()
STUDENTS = [name for name in known("students") if not name.startswith("nano")]
PARTS = {"weights", "gradients", "optimiser", "activations", "activations_unchecked", "logits"}


def plan(*arguments):
    result = RUNNER.invoke(app, ["plan", *arguments])
    assert result.exit_code == 0, result.exception or result.output
    return result.output


def planned(*arguments):
    return json.loads(plan(*arguments, "--format", "json"))


@pytest.mark.parametrize(
    ("hardware", "recipe"),
    [
        # The default in `make test`, the others with the long tests: each is ten seconds.
        pytest.param(*pair, marks=() if pair == ("1x8-80gb", "both") else pytest.mark.slow)
        for pair in itertools.product(
            [h for h in known("hardware") if h != "cpu"], known("recipes")
        )
    ],
)
def test_every_combination_is_planned_and_dry_run_in_seconds(hardware, recipe):
    for student, method in itertools.product(STUDENTS, METHODS):
        arguments = ["--recipe", recipe, "--student", student, "--method", method]
        arguments += ["--hardware", hardware]
        arguments += ["--set", "sft.steps=10"] if method == "sft" else []
        started = time.process_time()
        document = planned(*arguments)
        assert time.process_time() - started < 5
        assert document["memory"]["peak"] > 0
        assert document["attention"].startswith("torch.nn.attention.varlen")
        assert document["parameters"]["student"] > 900_000
        assert set(document["memory"]["policy"]) >= PARTS
        assert (document["step"] is None) == (method == "sft")
        dry = RUNNER.invoke(app, ["train", *arguments, "--dry-run"])
        if document["refused"]:
            assert str(dry.exception) == document["refused"][0]
            assert hardware == "1-gpu-80gb", "only one GPU is too little"
        else:
            assert dry.exit_code == 0, dry.exception
            assert all("GiB;" not in warning for warning in document["warnings"])


def test_the_table_has_all_parts():
    text = plan("--student", "qwen2.5-vl-7b")
    for words in (
        *("8,292,166,656", "weights", "gradients", "optimiser", "without checkpointing", "logits"),
        *("KV cache", "reference", "total: sampling", "total: policy update", "tokens sampled"),
        *("GPU-hours: collect: 72b", "GPU-hours: discriminator", "GPU-hours: ril", "judge calls"),
        *("responses to collect: 78b", "disk (GiB): collection", "disk (GiB): steps", "mfu=0.35"),
        *("decode_efficiency=0.5", "warning: the judge"),
    ):
        assert words in text, words
    assert "does not fit: internvl3-8b" in plan(
        "--student", "internvl3-8b", "--hardware", "1-gpu-80gb"
    )
    assert "discriminator" in plan("--student", "nano")


def test_it_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from rilbench.cli import app\n"
        "try: app(['plan', '--student', 'internvl3-1b'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'verl', 'ray', 'pandas', 'numpy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_counts_follow_the_recipe():
    document = planned("--recipe", "both", "--set", "schedule.steps=100")
    assert document["judge_calls"] == 100 * 288
    assert document["responses"] == dict.fromkeys(("72b", "78b", "student"), 40_000 * 16)
    assert document["step"]["responses"] == 288
    assert document["step"]["sampled_tokens"] == 144 * 512
    alone = planned("--method", "dr-grpo")
    assert alone["responses"] == {}
    assert alone["memory"]["discriminator"] is None
    assert alone["step"]["sampled_tokens"] == 288 * 512
    sft = planned("--method", "sft", "--set", "sft.steps=10")
    assert set(sft["gpu_hours"]) == {"collect: 72b", "collect: 78b", "sft"}


def test_assumptions_are_printed_and_can_be_replaced():
    document = planned("--assume", "mfu=0.7", "--assume", "questions=1000")
    plain = planned()
    assert document["assumed"]["mfu"] == 0.7
    assert document["step"]["seconds"]["policy"] == pytest.approx(
        plain["step"]["seconds"]["policy"] / 2
    )
    assert document["responses"]["72b"] == 16_000
    slower = planned("--assume", "decode_efficiency=0.25")
    assert slower["step"]["seconds"]["sampling: responses"] == pytest.approx(
        2 * plain["step"]["seconds"]["sampling: responses"]
    )


@pytest.mark.parametrize("text", ["mf=1", "mfu", "mfu=much", "mfu=0", "questions=1.5", "mfu=nan"])
def test_bad_assumptions_are_refused(text):
    with pytest.raises(UserError, match="--assume"):
        assume(load_recipe("both"), [text])


def test_defaults_are_cut_to_the_recipes_limits():
    found = assume(load_recipe("both", "nano"))
    assert (found.prompt_tokens, found.response_tokens) == (160, 48)
    assert Assumptions().lines[0] == "questions=40000"


def test_more_devices_are_faster_and_hold_less():
    one, four = (make_plan(r, assume(r)) for r in map(_on, ("1x8-80gb", "4x8-80gb")))
    assert four.step.total_seconds < one.step.total_seconds
    assert four.memory.policy.weights * 4 == one.memory.policy.weights


def _on(hardware):
    return load_recipe("both", hardware=hardware)


def test_a_warning_names_a_setting_that_helps():
    tight = ["policy.micro_batch_tokens=98304"]
    recipe = load_recipe("both", "internvl3-8b", overrides=tight)
    (warning,) = [line for line in make_plan(recipe, assume(recipe)).warnings if "GiB;" in line]
    assert "policy update needs about" in warning
    setting = warning.rsplit("set ", 1)[1]
    helped = load_recipe("both", "internvl3-8b", overrides=[*tight, setting])
    assert not [line for line in make_plan(helped, assume(helped)).warnings if "GiB;" in line]
