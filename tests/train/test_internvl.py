"""The whole loop with a student in InternVL3's layout, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from direct import log_probs
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SCRIPT = Path(sys.executable).parent / "rilbench"
QUESTIONS, STEPS = 8, 2


def call(place, *words):
    done = subprocess.run(
        [str(SCRIPT), *words], cwd=place, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the run: SFT on the questions' answers, discriminator, RIL, export."""
    place = tmp_path_factory.mktemp("internvl")
    asked = read_questions(locate("nano:prompts.parquet"))[:QUESTIONS]
    write_questions(place / "questions.parquet", asked)
    settings = {
        **{"data.train": "questions.parquet", "data.dev": "questions.parquet"},
        **{"sft.data": "questions.parquet", "sft.batch_size": QUESTIONS, "sft.steps": 2},
        **{"sft.lr": 1e-6, "sft.final_lr": 1e-7},  # a student that hardly moves
        "collection.student_responses": 1,
        "schedule.prompts_per_step": 4,
        "schedule.save_every": 1,
        "discriminator.pretrain_steps": 3,
        "discriminator.pretrain_batch_size": 16,
        **{"policy.mu": 2, "policy.lr": 1e-9},
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    student = ("--recipe", "both", "--student", "nano-internvl", "--run", "one")
    call(place, "train", *student, "--steps", str(STEPS), *overrides)
    return place


@pytest.fixture(scope="module")
def student():
    path = locate("nano:internvl")
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(path)


def test_sft_learns_what_is_said_of_the_pictures(place, student):
    lines = (place / "runs" / "one" / "sft" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    asked = read_questions(place / "questions.parquet")
    seen, blank = (
        [p for q in asked for p in log_probs(*student, q, f"{q.answer}<|im_end|>", dark)[0]]
        for dark in (False, True)
    )
    assert first["loss"] == pytest.approx(-sum(seen) / len(seen), rel=1e-4)
    assert abs(sum(seen) - sum(blank)) / len(seen) > 0.01
    assert first["trained_tokens"] == len(seen)


def test_the_loop_scores_each_row_with_its_pictures(place, student):
    """π_old of each row, as the trainer computed it, is the SFT student's by transformers alone."""
    path = place / "runs" / "one" / "sft" / "checkpoint"
    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor = student[1]
    asked = {q.id: q for q in read_questions(place / "questions.parquet")}
    compared = set()
    for line in (place / "runs" / "one" / "rollouts" / "step_1.jsonl").open():
        row = json.loads(line)
        text = row["response"] + (processor.tokenizer.eos_token if row["finished"] else "")
        if len(processor.tokenizer.encode(text)) != row["tokens"]:
            continue  # the text encodes to other tokens than those that were sampled
        found, prompt = log_probs(model, processor, asked[row["question_id"]], text)
        assert row["old_log_prob"] == pytest.approx(sum(found), abs=2e-3)
        assert row["image_tokens"] == prompt.count(processor.image_token_id) > 0
        compared.add(row["source"])
    assert compared == {"student", "72b", "78b"}


def test_what_comes_out_is_evaluated_by_the_kit(place):
    checkpoint = place / "runs" / "one" / "checkpoint"
    found = inspect_checkpoint(checkpoint)
    assert (found.model_type, found.labels.student) == ("internvl", "nano-internvl")
    asked = ("--benchmarks", "MMStar,BLINK,RWQA", "--limit", "6")
    common = ("eval", "--model", str(checkpoint), *asked, "--db", "scores.db")
    call(place, *common, "--engine", "batch", "--work", "batch")
    call(place, *common, "--engine", "server", "--work", "server")
    shown = json.loads(call(place, "show", "--db", "scores.db", "--format", "json"))
    assert len(shown) >= 2
