"""2 and 4 ranks compute what 1 rank computes, by rows and by a budget of tokens."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

pytestmark = pytest.mark.timeout(1800)
SCRIPT = Path(sys.executable).parent / "rilbench"
STEPS = 2
SETTINGS = {
    "data.train": "questions.parquet",
    "data.dev": "questions.parquet",
    "collection.folder": "collection",
    "collection.student_responses": 1,
    "schedule.prompts_per_step": 4,
    "discriminator.pretrain_steps": 2,
    "discriminator.pretrain_batch_size": 16,
}
BY_TOKENS = ("policy.micro_batch_tokens=400", "discriminator.micro_batch_tokens=700")
RELATIVE = {
    "policy_loss": 1e-5,
    "grad_norm": 1e-4,
    "discriminator_loss": 1e-5,
    "discriminator_grad_norm": 1e-4,
    "kl": 1e-4,
    "discriminator_weights_scoring": 1e-6,
    "reward": 1e-5,
}
"""What scale.md's runs differed by at most, times ten."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains with these settings, once each: the metrics, and the run's folder."""
    place = tmp_path_factory.mktemp("ranks")
    write_questions(place / "questions.parquet", read_questions(locate("nano:prompts.parquet"))[:8])
    untied(place / "untied")

    @cache
    def train(*settings):
        name = f"run-{len(list(place.glob('runs/*')))}"
        given = [*(f"{key}={value}" for key, value in SETTINGS.items()), *settings]
        command = [str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--run", name]
        command += ["--steps", str(STEPS), *(part for each in given for part in ("--set", each))]
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout[-3000:]
        run = place / "runs" / name
        return [json.loads(line) for line in (run / "metrics.jsonl").open()], run

    return train


def untied(out):
    """The nano student with a head of its own, as Qwen2.5-VL-7B has."""
    source = locate("nano:restyled")
    model = AutoModelForImageTextToText.from_pretrained(source)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(source).save_pretrained(out)


def assert_equal(one, other, moved=1e-4):
    """The metrics of each step, and the exported weights against how far they moved."""
    for step, (a, b) in enumerate(zip(one[0], other[0], strict=True), start=1):
        for name, relative in RELATIVE.items():
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=relative, abs=1e-6), (step, name)
    first, second = (load_file(run / "checkpoint" / "model.safetensors") for _, run in (one, other))
    assert first.keys() == second.keys()
    difference = sum((first[k] - second[k]).double().square().sum().item() for k in first) ** 0.5
    assert difference < moved


def test_two_ranks_by_rows(trained):
    assert_equal(trained(), trained("hardware.devices=2"))


def test_four_ranks_by_tokens(trained):
    assert_equal(trained(), trained("hardware.devices=4", *BY_TOKENS))


def test_two_ranks_of_an_untied_student(trained):
    # Ranks above 0 start from weights on the meta device.
    more = ("student.model=untied", "collection.folder=collection-untied")
    one, two = trained(*more), trained("hardware.devices=2", *more)
    assert_equal(one, two)
    weights = load_file(one[1] / "checkpoint" / "model.safetensors")
    assert "lm_head.weight" in weights


def test_mini_batches_are_the_same_updates_on_any_number_of_ranks(trained):
    more = ("policy.mini_batches=2",)
    assert_equal(trained(*more), trained("hardware.devices=2", *more), moved=1e-3)
