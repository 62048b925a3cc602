"""Questions that fail in the loop: replaced, named and counted; too many stop the run.

The check before the run leaves such questions out, so its record is edited here as if they had been
fine then.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(sys.executable).parent / "rilbench"
QUESTIONS, STEP = 8, 3


def write_data(folder, broken):
    """Eight questions; ``broken`` makes one of them so."""
    rows = []
    for i in range(QUESTIONS):
        file = io.BytesIO()
        Image.effect_noise((56, 56), 50 + i).convert("RGB").save(file, "jpeg")
        (folder / f"{i}.jpg").write_bytes(file.getvalue())
        rows.append({"id": f"q{i}", "image": f"{i}.jpg", "question": f"{i}?", "answer": "yes"})
    (folder / "dev.jsonl").write_text(json.dumps(rows[0]))
    broken(folder, rows)
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))


def truncate(folder, rows):
    for number in (2, 3):
        file = folder / f"{number}.jpg"
        file.write_bytes(file.read_bytes()[:-200])


def special_token(folder, rows):
    rows[5]["question"] = "What is <|image_pad|>?"


def train(folder, *more):
    settings = {
        "data.train": "train.jsonl",
        "data.dev": "dev.jsonl",
        "schedule.prompts_per_step": STEP,
        "group_size": 2,
        "schedule.save_every": 1,
    }
    command = [SCRIPT, "train", "--recipe", "both", "--student", "nano", "--method", "dr-grpo"]
    command += ["--run", "r", "--steps", "2", *more]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return subprocess.run(
        [*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def started(folder, broken):
    """A run whose check found the broken questions, and is then told that there are none."""
    write_data(folder, broken)
    checked = train(folder, "--collect-only")
    assert checked.returncode == 0, checked.stderr
    file = folder / "runs" / "r" / "questions.json"
    checks = json.loads(file.read_text())
    refused = checks["data.train"]["refused"]
    assert refused
    assert f"first {min(refused)}: " in checked.stdout
    assert checked.stderr == "", "nothing of verl's own"
    checks["data.train"]["refused"] = {}
    file.write_text(json.dumps(checks))
    return refused


@pytest.mark.timeout(1300)
def test_a_question_that_fails_is_replaced_named_and_counted(tmp_path):
    refused = started(tmp_path, truncate)
    assert set(refused) == {"q2", "q3"}
    done = train(tmp_path, "--resume", "--set", "data.max_failed=1")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "r"
    notes = [json.loads(line) for line in (run / "notes.jsonl").read_text().splitlines()]
    named = {note["note"].split()[1] for note in notes if note["note"].startswith("question ")}
    assert named
    assert named <= {"q2", "q3"}
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2]
    assert sum(line["failed_questions"] for line in metrics) >= 1
    for step in (1, 2):
        rows = (run / "rollouts" / f"step_{step}.jsonl").read_text().splitlines()
        ids = [json.loads(row)["question_id"] for row in rows]
        assert len(ids) == STEP * 4
        assert {ids.count(each) for each in ids} == {4}, "groups are whole, of different questions"
        assert not {"q2", "q3"} & set(ids)


@pytest.mark.timeout(1300)
def test_a_question_that_never_comes_has_a_time_limit(tmp_path):
    """verl's worker never hears of the StopIteration that its processor raises."""
    assert set(started(tmp_path, special_token)) == {"q5"}
    done = train(tmp_path, "--resume", "--set", "schedule.max_wait=1", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert "question q5 failed (TimeoutError: no response within" in done.stdout
    metrics = (tmp_path / "runs" / "r" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1, 2, 3]
