"""A run of RIL goes on with other devices: both optimisers and the discriminator are kept."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

SCRIPT = Path(sys.executable).parent / "rilbench"
SAME = ("kl", "policy_loss", "grad_norm", "discriminator_loss", "discriminator_grad_norm", "reward")


def train(folder, steps, devices, *more):
    settings = {
        "hardware.devices": devices,
        "schedule.prompts_per_step": 4,
        "schedule.save_every": 1,
        "group_size": 2,
        "collection.teacher_responses": 2,
        "collection.student_responses": 1,
        "data.train": folder.parent / "questions.parquet",
        "data.dev": folder.parent / "questions.parquet",
        "discriminator.pretrain_steps": 2,
        "discriminator.pretrain_batch_size": 8,
        "collection.folder": folder.parent / "collection",
    }
    command = [SCRIPT, "train", "--recipe", "72b", "--student", "nano", "--run", "r", *more]
    command += ["--steps", steps]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = (folder / "runs" / "r" / "metrics.jsonl").read_text().splitlines()
    return done.stdout, [json.loads(line) for line in lines]


@pytest.mark.timeout(2400)
def test_a_run_of_one_device_goes_on_with_two_and_back(tmp_path):
    questions = read_questions(locate("nano:prompts.parquet"))[:8]
    write_questions(tmp_path / "questions.parquet", questions)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    train(one, 1, 1)
    shutil.copytree(one, two)
    _, expected = train(one, 2, 1, "--resume")
    told, found = train(two, 2, 2, "--resume")
    assert "was saved by 1 devices; it is cut for 2" in told
    for name in SAME:
        assert found[1][name] == pytest.approx(expected[1][name], rel=1e-3, abs=1e-5), name
    assert not (two / "runs" / "r" / "steps" / ".resharded").exists()
    told, _ = train(two, 3, 1, "--resume")
    assert "was saved by 2 devices; it is cut for 1" in told
