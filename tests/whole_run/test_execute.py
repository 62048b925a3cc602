"""A whole run file, as a user gives it: stopped in the loop, given again, and once more."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rilbench.config import read_recipe
from rilbench.data.manifest import manifest_beside
from rilbench.data.question_files import read_questions
from rilbench.paths import locate

pytestmark = pytest.mark.timeout(1500)
SPLITS = {"train": "", "dev": ".dev"}
SCRIPT = str(Path(sys.executable).parent / "rilbench")
FILE = """
recipe: both
student: nano
run: whole
data: {train: made.yaml, dev: made.yaml}
settings:
  collection: {student_responses: 1}
  discriminator: {pretrain_steps: 2, pretrain_batch_size: 16}
  schedule: {steps: 2, prompts_per_step: 4, save_every: 1, eval_every: 1}
eval:
  suite: nano
  benchmarks: [MMStar, AI2D]
  limit: 4
"""
DATA = """
questions: 8
dev: 4
benchmarks: ""
sources:
  own: {path: own, columns: {question: problem}}
"""


def metrics(folder):
    file = folder / "runs" / "whole" / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_own(folder):
    """A data set in a layout of its own, of which the run's questions are built."""
    (folder / "own").mkdir()
    rows = [
        {"problem": q.question, "answer": q.answer, "images": [{"bytes": i} for i in q.images]}
        for q in read_questions(locate("nano:prompts.parquet"))[:16]
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "own" / "train-0.parquet")


def test_a_run_file_from_its_data_to_the_table(tmp_path):
    write_own(tmp_path)
    (tmp_path / "made.yaml").write_text(DATA)
    (tmp_path / "small.yaml").write_text(FILE)
    command = [SCRIPT, "run", "small.yaml"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        deadline = time.monotonic() + 600
        while not metrics(tmp_path) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM, (tmp_path / "first.log").read_text()
    told = (tmp_path / "first.log").read_text()
    assert told.splitlines()[-1].endswith("command goes on")
    assert "own: 16 candidates of 16 rows" in told
    assert "made.dev.parquet: 4 questions for data.dev" in told
    recipe = read_recipe(tmp_path / "runs" / "whole" / "recipe.yaml")
    built = {name: tmp_path / "data" / f"made{end}.parquet" for name, end in SPLITS.items()}
    digests = {name: manifest_beside(file).digest for name, file in built.items()}
    assert recipe.data.manifests == digests

    watched = subprocess.run(
        [SCRIPT, "watch", "whole"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "not going on" in watched.stdout
    assert "sample of step 1" in watched.stdout
    assert "reward " in watched.stdout

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    for words in ("collect: done before", "discriminator: done before", "ril: done"):
        assert words in done.stdout
    assert "candidates" not in done.stdout, "the data was built before"
    for words in ("export: done", "eval: done", "table: done", "step 2/2"):
        assert words in done.stdout
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]
    measured = done.stdout.split("MEASURED")[1]
    assert "base #1" in measured
    assert "ril both #2" in measured
    shown = subprocess.run(
        [SCRIPT, "show", "whole"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for digest in digests.values():
        assert f"{digest} own own files@" in " ".join(shown.stdout.split())
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
