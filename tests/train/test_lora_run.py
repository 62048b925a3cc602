"""A run with LoRA, as a user starts it: SFT, then two steps, and two more after a resume.

Its mechanics are those of a full run: groups, order, files. What the engines do with an adapter is
in `tests/train/verl/test_lora.py`.
"""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate, nano_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
SCRIPT = Path(sys.executable).parent / "rilbench"
QUESTIONS, G = 4, 4


def train(folder, name, *more, steps):
    settings = {
        "data.train": "questions.parquet",
        "data.dev": "questions.parquet",
        "collection.folder": "collection",
        "collection.student_responses": 1,
        "schedule.prompts_per_step": QUESTIONS,
        "schedule.save_every": 1,
        "schedule.export_adapter": "keep",
        "discriminator.pretrain_steps": 3,
        "discriminator.pretrain_batch_size": 16,
        "discriminator.lr": 1e-3,
        "policy.lora_rank": 4,
        "policy.lr": 1e-3,
        "sft.steps": 2,
        "sft.batch_size": 8,
        "sft.lr": 1e-3,
        "sft.final_lr": 1e-4,
    }
    done = subprocess.run(
        [
            *(str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--run", name),
            *("--steps", str(steps), *more),
            *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")],
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of two steps in one go, and one of the same seed with a resume between them."""
    place = tmp_path_factory.mktemp("lora")
    questions = read_questions(locate("nano:prompts.parquet"))[:8]
    write_questions(place / "questions.parquet", questions)
    train(place, "one", steps=2)
    train(place, "two", steps=1)
    train(place, "two", "--resume", steps=2)
    return place


def metrics(folder, name):
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def rows(folder, name, step):
    file = folder / "runs" / name / "rollouts" / f"step_{step}.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(found, key=lambda row: (row["question_id"], row["session"]))


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_the_step_is_algorithm_2(folder):
    for step, figures in enumerate(metrics(folder, "one"), 1):
        groups = defaultdict(list)
        for row in rows(folder, "one", step):
            groups[row["question_id"]].append(row["source"])
        assert len(groups) == QUESTIONS
        for sources in groups.values():
            assert sources.count("student") == G
            assert set(sources) == {"student", "72b", "78b"}
        assert figures["ratio_mean"] == figures["ratio_max"] == 1.0
        assert figures["discriminator_weights_before"] != figures["discriminator_weights_scoring"]
    first, second = metrics(folder, "one")
    assert first["kl"] == 0, "the adapter begins at 0, on the student after SFT"
    assert second["kl"] > 0


def test_a_resumed_run_is_the_run_without_an_interruption(folder):
    for step in (1, 2):
        assert rows(folder, "one", step) == rows(folder, "two", step)
    for one, two in zip(metrics(folder, "one"), metrics(folder, "two"), strict=True):
        for name in ("policy_loss", "discriminator_loss", "discriminator_weights_scoring"):
            assert one[name] == two[name]
        # Two processes sum a gradient in other orders; `test_lora.py` compares bit by bit in one.
        for name in ("kl", "grad_norm"):
            assert one[name] == pytest.approx(two[name], rel=1e-4)
    one, two = (weights(folder / "runs" / name / "checkpoint") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_the_checkpoint_is_laid_out_as_the_student_and_merged(folder):
    run = folder / "runs" / "one"
    inspect_checkpoint(run / "checkpoint")
    exported, student = weights(run / "checkpoint"), weights(nano_folder() / "restyled")
    assert {name: w.shape for name, w in exported.items()} == {
        name: w.shape for name, w in student.items()
    }
    after_sft = run / "sft" / "checkpoint"
    changed = {name for name in student if not torch.equal(weights(after_sft)[name], student[name])}
    assert any("visual" in name for name in changed)
    assert not any("norm" in name or "embed" in name or "bias" in name for name in changed)
    base = AutoModelForImageTextToText.from_pretrained(after_sft, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, run / "adapter").merge_and_unload()
    merged = AutoModelForImageTextToText.from_pretrained(run / "checkpoint", dtype=torch.float32)
    for name, weight in merged.state_dict().items():
        assert torch.allclose(weight, adapted.state_dict()[name], atol=1e-5), name


def test_steps_hold_the_adapter_and_not_its_base(folder):
    step = folder / "runs" / "one" / "steps" / "global_step_2"
    saved = torch.load(step / "actor" / "model_world_size_1_rank_0.pt", weights_only=False)
    assert saved
    assert all("lora_" in name for name in saved)
    critic = torch.load(step / "critic" / "model_world_size_1_rank_0.pt", weights_only=False)
    assert "base_model.model.score.weight" in critic
