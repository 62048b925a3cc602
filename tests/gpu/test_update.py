"""The measurement that waits for a GPU, with a tiny student on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_student import Size
from gpu_update import STUDENTS, planned, speed

HERE = Path(__file__).parent


def test_both_updates_run_and_are_written_down(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, HERE / "gpu_update.py", "--tiny", "--out", out]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parents[1])})
    (student,) = json.loads(out.read_text())["students"]
    assert student["parameters"] == Size.tiny().architecture.parameters
    parts = (("policy", 2, 18), ("policy, prompt once", 2, 18), ("discriminator", 14, 72))
    for part, rows, length in parts:
        found = student[part]
        assert (found["rows"], found["row_tokens"]) == (rows, length)
        assert found["tokens"] == rows * length
        assert found["tokens_per_second"] > 0
        assert found["optimiser_seconds"] > 0
        assert part == "policy, prompt once" or found["planned_gib"] >= 0


@pytest.mark.parametrize("student", STUDENTS)
def test_the_rows_and_the_plan_are_the_recipes(student):
    size = Size.of(student)
    for (rows, length), most in (
        (size.policy_rows, size.recipe.policy.micro_batch_tokens),
        (size.discriminator_rows, size.recipe.discriminator.micro_batch_tokens),
    ):
        assert 0 < rows * length <= most
    with_moments, without = (planned(size.memory.policy, step=s) for s in (True, False))
    moments = 8 * size.architecture.parameters / 2**30
    assert with_moments - without == pytest.approx(moments, abs=0.02)
    # All of the smaller, and of the larger all but the moments, go onto a GPU of 80 GB.
    assert (with_moments if student.endswith("3b") else without) < 78


def test_utilisation_counts_three_forwards_and_the_fourth_apart():
    found = speed({"seconds": 2.0}, 1000, forward=100e12, peak=1000.0)
    assert found["tokens_per_second"] == 500
    assert found["mfu"] == 0.15
    assert found["mfu_with_recomputation"] == 0.2


def test_without_a_gpu_it_says_so():
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}
    done = subprocess.run(
        [HERE / "run.sh"], capture_output=True, text=True, check=False, env=hidden
    )
    assert done.returncode == 1
    assert "torch sees no GPU" in done.stderr
