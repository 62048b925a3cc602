"""A run that is stopped from outside says what is saved, and the ledger knows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock
from flaky_teacher import flaky_teacher

from rilbench.config import load_recipe
from rilbench.ledger import Ledger
from rilbench.train.pipeline.ledger_summary import record
from rilbench.train.pipeline.run_folder import open_run

SCRIPT = Path(sys.executable).parent / "rilbench"


def start(folder, url):
    """A run whose teacher answers slowly: it is collecting when a signal comes."""
    command = [SCRIPT, "train", "--recipe", "72b", "--student", "nano", "--run", "r"]
    command += ["--method", "teacher-rows", "--set", f"collection.endpoints.72b=teacher@{url}"]
    process = subprocess.Popen(
        [*map(str, command)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    journal = folder / "runs" / "r" / "collection"
    while not list(journal.glob("*.jsonl")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def status(folder):
    with Ledger.open_read(folder / "rilbench.db") as ledger:
        (run,) = ledger.runs()
    return run.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_says_how_to_go_on(tmp_path, number):
    with flaky_teacher(pause=0.2) as teacher:
        process = start(tmp_path, teacher.url)
        assert status(tmp_path) == "running"
        os.kill(process.pid, number)
        _, error = process.communicate(timeout=60)
    assert status(tmp_path) == "stopped"
    if number == signal.SIGKILL:
        return
    assert process.returncode == 128 + number
    (line,) = error.strip().splitlines()
    assert line == (
        f"rilbench: runs/r was stopped ({number.name}); saved is no step yet, and every "
        "response that was collected; the same command with --resume goes on"
    )


def test_a_run_that_nobody_trains_is_not_running(tmp_path):
    run = open_run(tmp_path / "r", load_recipe("both", "nano"), resume=False)
    record(run, "running", tmp_path / "rilbench.db")
    assert status(tmp_path) == "stopped"
    with FileLock(run.folder / ".lock"):
        assert status(tmp_path) == "running"
    assert status(tmp_path) == "stopped"
