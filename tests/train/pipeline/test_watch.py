"""A run watched from its files: while it goes on, after a resume, at its end, after a kill."""

import io
import json
import threading
import time

import pytest
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.config import load_recipe
from rilbench.train.nan_guard import STOPPED
from rilbench.train.pipeline import progress_record
from rilbench.train.pipeline import watch as watching
from rilbench.train.pipeline.progress import TrainingProgress
from rilbench.train.pipeline.progress_record import RecordedProgress, planned_stages
from rilbench.train.pipeline.run_folder import open_run

STEP = {
    "seconds": 2.0,
    "answer_reward_student": 0.5,
    "kl": 0.1,
    "tokens_student": 12.0,
    "dev_accuracy": 0.25,
}


class Nothing:
    """A progress that shows nothing."""

    def __getattr__(self, _):
        return lambda *_: None


@pytest.fixture
def run(tmp_path):
    """A run that a process resumed at step 2, of three."""
    recipe = load_recipe("both", "nano", "dr-grpo", ["schedule.steps=3"])
    run = open_run(tmp_path / "runs" / "r", recipe, resume=False)
    RecordedProgress(Nothing(), run.folder, planned_stages(recipe)).note("of the first process")
    told = RecordedProgress(Nothing(), run.folder, planned_stages(recipe))
    told.note("a note")
    told.stage("collect", "skipped")
    told.stage("dr-grpo", "running")
    write_step(run, 1)
    return run


def write_step(run, number):
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": number, **STEP}) + "\n")


def test_the_stages_of_a_method():
    ahead = planned_stages(load_recipe("both", "nano", "ril", ["sft.steps=1"]))
    assert ahead == ["collect", "sft", "discriminator", "ril", "export"]
    assert planned_stages(load_recipe("both", "nano", "grpo")) == ["grpo", "export"]
    alone = load_recipe("both", "nano", "sft", ["sft.steps=1"])
    assert planned_stages(alone) == ["collect", "sft", "export"]


def test_counts_of_days_are_few_lines(tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 5))
    monkeypatch.setattr(progress_record.time, "monotonic", lambda: next(clock))
    told = RecordedProgress(Nothing(), tmp_path, ["collect"])
    for done in range(0, 640_001, 64):
        told.answers("72b", done, 640_000)
    lines = (tmp_path / progress_record.FILE).read_text().splitlines()
    assert 1900 < len(lines) <= 2003
    assert json.loads(lines[-1])["done"] == 640_000


def test_a_run_that_was_killed(run):
    done = CliRunner().invoke(app, ["watch", "r", "--runs", str(run.folder.parent)])
    assert done.exit_code == 0, done.output
    assert done.output.count("→") == 1, "one picture, no line of its own for each event"
    for words in ("note: a note", "1/3", "0.25 at step 1", "not going on, no step is saved"):
        assert words in done.output
    assert "of the first process" not in done.output
    assert "left" not in done.output
    (run.folder / STOPPED).write_text("step 2: the judge is gone\n")
    assert "the judge is gone" in watching.how_it_ended(run)


def test_a_run_that_goes_on_until_it_ends(run, monkeypatch):
    monkeypatch.setattr(watching, "_SECONDS_BETWEEN_LOOKS", 0.01)
    out = io.StringIO()
    progress = TrainingProgress.of(Console(file=out, width=100), run)
    progress.is_silent = True
    lock = FileLock(run.folder / ".lock", thread_local=False)
    lock.acquire()
    thread = threading.Thread(target=watching.watch, args=(run, progress))
    thread.start()
    try:
        wait_for(out, "left")
        assert "2/3" not in out.getvalue()
        write_step(run, 2)
        wait_for(out, "2/3")
    finally:
        lock.release()
        thread.join()
    assert out.getvalue().splitlines()[-1].startswith("not going on")


def wait_for(out, words):
    end = time.monotonic() + 20
    while words not in out.getvalue():
        assert time.monotonic() < end, out.getvalue()
        time.sleep(0.01)


def test_a_run_of_another_machine_goes_on_while_its_files_change(run):
    assert watching._goes_on(run.folder, "another")
    assert not watching._goes_on(run.folder, "")


def test_what_is_no_run(tmp_path):
    done = CliRunner().invoke(app, ["watch", "r", "--runs", str(tmp_path)])
    assert r"is not a run; give the name of a folder in" in str(done.exception)
