"""A whole run file, as a user gives it: stopped in the loop, given again, and once more."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rilbench.data.question_files import read_questions, write_questions
from rilbench.paths import locate

pytestmark = pytest.mark.timeout(1500)
SCRIPT = str(Path(sys.executable).parent / "rilbench")
FILE = """
recipe: both
student: nano
run: whole
settings:
  data: {train: questions.parquet, dev: questions.parquet}
  collection: {student_responses: 1}
  discriminator: {pretrain_steps: 2, pretrain_batch_size: 16}
  schedule: {steps: 2, prompts_per_step: 4, save_every: 1, eval_every: 1}
eval:
  suite: nano
  benchmarks: [MMStar, AI2D]
  limit: 4
"""


def metrics(folder):
    file = folder / "runs" / "whole" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_file_from_its_data_to_the_table(tmp_path):
    write_questions(
        tmp_path / "questions.parquet", read_questions(locate("nano:prompts.parquet"))[:8]
    )
    (tmp_path / "small.yaml").write_text(FILE)
    command = [SCRIPT, "run", "small.yaml"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        while not metrics(tmp_path) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM, (tmp_path / "first.log").read_text()
    assert (tmp_path / "first.log").read_text().splitlines()[-1].endswith("command goes on")

    watched = subprocess.run(
        [SCRIPT, "watch", "whole"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "not going on" in watched.stdout
    assert "sample of step 1" in watched.stdout

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    for words in ("collect: done before", "discriminator: done before", "ril: done"):
        assert words in done.stdout
    for words in ("export: done", "eval: done", "table: done", "step 2/2", "reward "):
        assert words in done.stdout
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]
    measured = done.stdout.split("MEASURED")[1]
    assert "base #1" in measured
    assert "ril both #2" in measured
    told = (tmp_path / "runs" / "whole" / "progress.jsonl").read_text().splitlines()
    assert sum("begin" in json.loads(line) for line in told) == 2

    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "ril: done before" in again.stdout
    assert len(told) == len((tmp_path / "runs/whole/progress.jsonl").read_text().splitlines())
    watched = subprocess.run(
        [SCRIPT, "watch", "whole"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "finished: runs/whole/checkpoint" in watched.stdout
