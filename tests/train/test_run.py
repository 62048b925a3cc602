"""One short run of everything, as a user starts it: killed at a random moment, then resumed.

The real verl, the real servers, the nano models. Both tests share one run, since starting
verl takes a minute on two cores.
"""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from PIL import Image

from rilbench.checkpoint import inspect_checkpoint
from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate, nano_folder

SCRIPT = Path(sys.executable).parent / "rilbench"
STEPS, QUESTIONS, G = 3, 4, 4


def questions_file(folder, number=8):
    path = folder / "questions.parquet"
    write_questions(path, read_questions(locate("nano:prompts.parquet"))[:number])
    return path


def command(questions, *more):
    settings = {
        "data.train": questions,
        "data.dev": questions,
        "schedule.prompts_per_step": QUESTIONS,
        "schedule.save_every": 1,
        "discriminator.pretrain_steps": 3,
        "discriminator.pretrain_batch_size": 16,
        "collection.student_responses": 1,
        # So that a weight changes by its gradient only.
        "policy.weight_decay": 0,
    }
    return [
        *(str(SCRIPT), "train", "--recipe", "both", "--student", "nano", "--run", "short"),
        *("--steps", str(STEPS), *more),
        *[part for key, value in settings.items() for part in ("--set", f"{key}={value}")],
    ]


def metrics(folder):
    file = folder / "runs" / "short" / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was killed with its whole process group, and then resumed."""
    folder = tmp_path_factory.mktemp("run")
    questions = questions_file(folder)
    log = (folder / "first.log").open("w")
    first = subprocess.Popen(
        command(questions), cwd=folder, stdout=log, stderr=log, start_new_session=True
    )
    deadline = time.monotonic() + 400
    while len(metrics(folder)) < 1 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert first.poll() is None, (folder / "first.log").read_text()[-2000:]
    time.sleep(random.Random().uniform(0, 3))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    short = folder / "runs" / "short"
    kept = {path: path.stat().st_mtime_ns for path in (short / "collection").glob("*.parquet")}
    kept[short / "discriminator.jsonl"] = (short / "discriminator.jsonl").stat().st_mtime_ns
    assert not (short / "checkpoint").exists()
    # What a kill between the policy's part of a checkpoint and the discriminator's would leave, and
    # the same under a finished step's name: neither is to be found.
    for place in (".partial/global_step_9", "global_step_99"):
        actor = short / "steps" / place / "actor"
        actor.mkdir(parents=True, exist_ok=True)
        (actor / "model_world_size_1_rank_0.pt").write_bytes(b"half of a policy")
    _wait_until_gone(folder)
    second = subprocess.run(
        command(questions, "--resume"), cwd=folder, capture_output=True, text=True, timeout=500
    )
    assert second.returncode == 0, second.stderr + second.stdout[-3000:]
    return folder, kept, questions


def _wait_until_gone(folder):
    """The trainer of this run must go with its parent, and Ray with the trainer."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if folder not in [_working_folder(process) for process in psutil.process_iter()]:
            return
        time.sleep(0.5)
    raise AssertionError("the trainer outlived its parent")


def _working_folder(process):
    try:
        return Path(process.cwd())
    except psutil.Error:
        return None


def image_tokens(image):
    width, height = Image.open(io.BytesIO(image)).size
    return width * height // 28**2


def rows_by_step(folder):
    for step in range(1, STEPS + 1):
        file = folder / "runs" / "short" / "rollouts" / f"step_{step}.jsonl"
        yield step, [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.timeout(900)
def test_a_killed_run_resumes_and_does_nothing_twice(run):
    folder, kept, questions = run
    assert [m["step"] for m in metrics(folder)] == list(range(1, STEPS + 1))
    for path, moment in kept.items():
        assert path.stat().st_mtime_ns == moment, f"{path.name} was made twice"
    again = subprocess.run(
        command(questions), cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert again.returncode == 0
    assert "is finished" in again.stdout


@pytest.mark.timeout(900)
def test_the_step_is_algorithm_2(run):
    folder, _, questions = run
    cells = {q.id: sum(map(image_tokens, q.images)) for q in read_questions(questions)}
    responses = {"student": set(), "teacher": set()}
    for step, rows in rows_by_step(folder):
        groups = defaultdict(list)
        for row in rows:
            groups[row["question_id"]].append(row)
        assert len(groups) == QUESTIONS
        for group in groups.values():
            own = [row for row in group if row["source"] == "student"]
            saved = [row for row in group if row["source"] in ("72b", "78b")]
            assert len(own) == len(saved) == G
            assert {row["source"] for row in saved} == {"72b", "78b"}
            assert sorted(row["session"] for row in group) == list(range(2 * G))
            rewards = [row["similarity_reward"] + row["answer_reward"] for row in group]
            mean = sum(rewards) / len(rewards)
            for row, reward in zip(group, rewards, strict=True):
                assert row["advantage"] == pytest.approx(reward - mean, abs=1e-6)
            assert sum(row["advantage"] for row in group) == pytest.approx(0, abs=1e-5)
        for row in rows:
            assert row["similarity_reward"] == float(row["discriminator_prob"] < 0.5)
            assert row["answer_reward"] in (0, 1)
            assert row["image_tokens"] == cells[row["question_id"]], (
                "a token for each 28 x 28 pixels"
            )
            responses["student" if row["source"] == "student" else "teacher"].add(row["response"])
        figures = metrics(folder)[step - 1]
        assert figures["ratio_mean"] == figures["ratio_max"] == 1.0
        assert figures["discriminator_weights_before"] != figures["discriminator_weights_scoring"]
        assert figures["advantage_group_sum_max"] < 1e-5
    assert metrics(folder)[0]["kl"] == 0, "the reference is the student that it started from"
    assert metrics(folder)[-1]["kl"] > 0


@pytest.mark.timeout(900)
def test_saved_rows_are_the_collections(run):
    import pyarrow.parquet as pq

    folder, _, _ = run
    for teacher in ("72b", "78b"):
        table = pq.read_table(folder / "runs" / "short" / "collection" / f"{teacher}.parquet")
        saved = {(r["question_id"], r["response"]) for r in table.to_pylist()}
        for _, rows in rows_by_step(folder):
            used = {(r["question_id"], r["response"]) for r in rows if r["source"] == teacher}
            assert used <= saved


@pytest.mark.timeout(900)
def test_the_checkpoint_is_an_ordinary_one_and_says_where_it_is_from(run):
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, _, _ = run
    path = folder / "runs" / "short" / "checkpoint"
    checkpoint = inspect_checkpoint(path)
    start = inspect_checkpoint(nano_folder() / "restyled")
    labels = checkpoint.labels
    assert (labels.student, labels.method, labels.teacher) == ("nano", "ril", "both")
    assert labels.start_fingerprint == start.fingerprint != checkpoint.fingerprint
    assert json.loads((path / "export.json").read_text())["step"] == STEPS
    model = AutoModelForImageTextToText.from_pretrained(path)
    old = AutoModelForImageTextToText.from_pretrained(start.path)
    changed = [
        name
        for (name, a), b in zip(model.named_parameters(), old.parameters(), strict=True)
        if not torch.equal(a, b)
    ]
    # All parameters are trained (Table 5c). Without pictures the tower's gradient would be zero.
    assert any("visual" in name for name in changed)
    AutoProcessor.from_pretrained(path)
