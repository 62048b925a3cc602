"""The SFT stage as a user starts it, against the loss that transformers alone computes."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

SCRIPT = Path(sys.executable).parent / "rilbench"
EXAMPLES, STEPS = 8, 3


def command(name, *more):
    settings = {
        **{"data.train": "questions.parquet", "data.dev": "questions.parquet"},
        **{"sft.data": "questions.parquet", "sft.batch_size": EXAMPLES, "sft.steps": STEPS},
        **{"sft.lr": 1e-3, "sft.final_lr": 1e-4, "schedule.prompts_per_step": 4},
    }
    return [
        *(str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--method", "sft"),
        *("--run", name, *more),
        *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")],
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sft")
    questions = read_questions(locate("nano:prompts.parquet"))[:EXAMPLES]
    write_questions(place / "questions.parquet", questions)
    done = subprocess.run(
        command("one"), cwd=place, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return place


def metrics(folder, name):
    lines = (folder / "runs" / name / "sft" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def mean_loss(questions, model, processor, blank=False):
    """Mean negative log-likelihood of all answer tokens, one question at a time."""
    total, count = 0.0, 0
    for question in questions:
        images = [Image.open(io.BytesIO(image)) for image in question.images]
        images = [Image.new("RGB", image.size) if blank else image for image in images]
        prompt = processor.apply_chat_template(
            question.chat, tokenize=False, add_generation_prompt=True
        )
        text = f"{prompt}{question.answer}<|im_end|>"
        batch = processor(text=[text], images=images, return_tensors="pt")
        target = len(processor.tokenizer.encode(f"{question.answer}<|im_end|>"))
        with torch.no_grad():
            logits = model(**batch).logits[0, :-1].log_softmax(-1)
        chosen = logits.gather(-1, batch["input_ids"][0, 1:, None])[-target:, 0]
        total, count = total - chosen.sum().item(), count + target
    return total / count, count


@pytest.mark.timeout(600)
def test_the_loss_is_the_likelihood_of_the_answers_given_the_pictures(folder):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = locate("nano:restyled")
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(path)
    questions = read_questions(folder / "questions.parquet")
    expected, tokens = mean_loss(questions, model, processor)
    first = metrics(folder, "one")[0]
    assert first["loss"] == pytest.approx(expected, abs=1e-4)
    assert first["trained_tokens"] == tokens
    blank, _ = mean_loss(questions, model, processor, blank=True)
    assert abs(blank - expected) > 1e-2, "this test could not tell pictures from none"


@pytest.mark.timeout(600)
def test_the_learning_rate_falls_linearly_and_the_loss_falls(folder):
    lines = metrics(folder, "one")
    assert [line["step"] for line in lines] == [1, 2, 3]
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([1e-3, 5.5e-4, 1e-4])
    assert lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.timeout(600)
def test_a_resumed_run_goes_on_with_its_learning_rate(folder):
    saving = command("cut", "--set", "schedule.save_every=1")
    with subprocess.Popen(saving, cwd=folder, stdout=subprocess.DEVNULL) as process:
        newest = folder / "runs" / "cut" / "sft" / "steps" / "latest_checkpointed_iteration.txt"
        while not newest.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    done = int(newest.read_text())
    assert done < STEPS, "it was not cut"
    subprocess.run([*saving, "--resume"], cwd=folder, check=True, timeout=500)
    log = (folder / "runs" / "cut" / "logs" / "sft.log").read_text()
    assert f"starting after step {done} of {STEPS}" in log
    for line, whole in zip(metrics(folder, "cut"), metrics(folder, "one"), strict=True):
        assert line["learning_rate"] == pytest.approx(whole["learning_rate"])
        assert line["loss"] == pytest.approx(whole["loss"], abs=1e-5)


@pytest.mark.timeout(600)
def test_the_student_is_exported_with_its_label_and_its_cost(folder):
    run = folder / "runs" / "one"
    checkpoint = inspect_checkpoint(run / "checkpoint")
    start = inspect_checkpoint(locate("nano:restyled"))
    labels = checkpoint.labels
    assert (labels.method, labels.teacher) == ("sft", "none"), "the data is the user's own"
    assert labels.start_fingerprint == start.fingerprint != checkpoint.fingerprint
    cost = json.loads((run / "cost.json").read_text())
    assert cost["trained_tokens"] == sum(line["trained_tokens"] for line in metrics(folder, "one"))
    assert cost["sampled_tokens"] == cost["teacher_tokens"] == cost["judge_calls"] == 0
    assert cost["cpu_seconds"]["sft"] > 1
    log = (run / "logs" / "rilbench.log").read_text()
    assert "sft: done in" in log
    assert "export: done in" in log
    assert "starting after step 0 of 3" in (run / "logs" / "sft.log").read_text()
    assert not (run / "collection").exists()
    assert not (run / "steps").exists()


@pytest.mark.timeout(600)
def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(folder):
    done = subprocess.run(
        [*command("wild"), "--set", "sft.lr=4e9", "--set", "sft.final_lr=4e9"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 1
    error = done.stderr.strip().splitlines()[-1]
    assert "sft, step 2: loss" in error
    assert "not finite" in error
    assert len(metrics(folder, "wild")) == 1
    assert not (folder / "runs" / "wild" / "checkpoint").exists()


def test_too_few_examples_are_refused_with_the_number(folder):
    done = subprocess.run(
        [*command("few"), "--set", "sft.batch_size=9"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "sft.batch_size=8" in done.stderr
