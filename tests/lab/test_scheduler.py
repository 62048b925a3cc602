import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.lab.experiment import read_experiment
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.run_result import read_results, write_result
from rilbench.lab.scheduler import run_experiment

SMALL = """\
name: small
regimes: [format]
seeds: [1, 2, 3]
split: dev
steps: 2
runs:
  - {name: untrained, model: student}
  - {name: ril, method: ril}
  - {name: dr-grpo, method: dr-grpo, set: {policy.kl_coef: 0.1}}
"""
GRID = """\
name: grid
regimes: [format]
seeds: [1]
split: dev
steps: 2
runs:
  - {name: after, method: dr-grpo, tuned_by: ril}
  - name: ril
    method: ril
    grid: {policy.lr: [1.0e-4, 2.0e-4, 4.0e-4]}
"""
TESTS = Path(__file__).parent


class Recorder:
    """What `run_experiment` shows."""

    def __init__(self):
        self.results, self.errors = [], []

    def start(self, name, done, total):
        self.started = (done, total)

    def worker(self, number, words):
        pass

    def finished(self, label, result, seconds):
        self.results.append(label)

    def failed(self, label, error):
        self.errors.append(label)

    def stopping(self):
        pass


@pytest.fixture
def paths(tmp_path):
    return LabPaths(results=tmp_path / "results", work=tmp_path / "work")


@pytest.fixture
def workers(make_result):
    """Workers whose jobs take no time; `seen` lists (job, settings) in order."""

    class Workers:
        def __init__(self):
            self.seen, self.opened, self.closed = [], [], []
            self.trouble = {}

        @contextmanager
        def open(self, number):
            self.opened.append(number)
            yield self.work
            self.closed.append(number)

        def work(self, job, settings, report):
            self.seen.append((job, settings))
            if job.label in self.trouble:
                raise self.trouble[job.label]
            return make_result(job, settings)

    return Workers()


def load(tmp_path, text):
    path = tmp_path / "e.yaml"
    path.write_text(text)
    return read_experiment(path)


def test_every_job_becomes_a_result_once(tmp_path, paths, workers):
    experiment, view = load(tmp_path, SMALL), Recorder()
    found = run_experiment(experiment, view, paths, workers=2, open_worker=workers.open)
    assert (found.before, found.done, found.left) == (0, 7, 0)
    labels = [job.label for job, _ in workers.seen]
    assert sorted(labels) == sorted(job.label for job in experiment.jobs())
    assert len(read_results(paths.runs, "small")) == 7
    assert sorted(workers.opened) == sorted(workers.closed)
    again = run_experiment(experiment, Recorder(), paths, workers=2, open_worker=workers.open)
    assert (again.before, again.done, again.left) == (7, 0, 0)
    assert len(workers.seen) == 7, "nothing finished is repeated"
    assert view.started == (0, 7)


def test_one_worker_keeps_the_order_of_the_file(tmp_path, paths, workers):
    experiment = load(tmp_path, SMALL)
    run_experiment(experiment, Recorder(), paths, workers=1, open_worker=workers.open)
    assert [job for job, _ in workers.seen] == experiment.jobs()
    assert workers.opened == [1]


def test_time_is_up(tmp_path, paths, workers):
    experiment = load(tmp_path, SMALL)
    found = run_experiment(experiment, Recorder(), paths, 2, minutes=0, open_worker=workers.open)
    assert (found.done, found.left) == (0, 7)
    assert workers.opened == [], "no session is started for nothing"


def test_an_error_is_reported_after_the_other_jobs_are_done(tmp_path, paths, workers):
    experiment, view = load(tmp_path, SMALL), Recorder()
    workers.trouble = {"format/ril-2": UserError("the server went; start it again")}
    with pytest.raises(UserError, match="1 of small stopped: format/ril-2: the server went"):
        run_experiment(experiment, view, paths, workers=2, open_worker=workers.open)
    assert view.errors == ["format/ril-2"]
    assert len(read_results(paths.runs, "small")) == 6
    workers.trouble = {}
    run_experiment(experiment, view, paths, workers=2, open_worker=workers.open)
    assert [job.label for job, _ in workers.seen].count("format/ril-2") == 2
    assert len(workers.seen) == 8


def test_a_worker_stops_after_consecutive_failures(tmp_path, paths, workers):
    experiment = load(tmp_path, SMALL)
    workers.trouble = {job.label: UserError("no") for job in experiment.jobs()}
    with pytest.raises(UserError, match="2 of small stopped"):
        run_experiment(experiment, Recorder(), paths, workers=1, open_worker=workers.open)


def test_a_bug_is_raised(tmp_path, paths, workers):
    workers.trouble = {"format/ril-1": ZeroDivisionError("bug")}
    with pytest.raises(ZeroDivisionError):
        run_experiment(load(tmp_path, SMALL), Recorder(), paths, 2, open_worker=workers.open)
    assert sorted(workers.opened) == [1, 2]


def test_a_failed_run_is_a_result_and_not_tried_again(tmp_path, paths, failed_result):
    calls = []

    @contextmanager
    def open_worker(number):
        def work(job, settings, report):
            calls.append(job.label)
            return failed_result(job, settings)

        yield work

    experiment = load(tmp_path, SMALL)
    run_experiment(experiment, Recorder(), paths, open_worker=open_worker)
    run_experiment(experiment, Recorder(), paths, open_worker=open_worker)
    assert len(calls) == 7
    assert {result.failure.step for result in read_results(paths.runs, "small")} == {7}


def test_a_grid_is_chosen_before_the_run_that_needs_it(tmp_path, paths, workers):
    experiment = load(tmp_path, GRID)
    run_experiment(experiment, Recorder(), paths, workers=2, open_worker=workers.open)
    assert workers.seen[-1][0].spec.name == "after", "though it is the first in the file"
    tuned = json.loads(paths.tuned.read_text())
    assert workers.seen[-1][1] == tuned["format"]["ril"]["settings"]
    (result,) = [result for result in read_results(paths.runs, "grid") if result.name == "after"]
    assert result.settings == tuned["format"]["ril"]["settings"]


def test_a_grid_that_cannot_finish_leaves_what_needs_it(tmp_path, paths, workers):
    workers.trouble = {"format/ril+lr=0.0002-1": UserError("no")}
    experiment = load(tmp_path, GRID)
    with pytest.raises(UserError, match="1 of grid stopped"):
        run_experiment(experiment, Recorder(), paths, workers=2, open_worker=workers.open)
    assert "after" not in [job.spec.name for job, _ in workers.seen]


def test_an_unfinished_grid_is_refused(tmp_path, paths, workers):
    text = SMALL.replace("method: ril}", "method: ril, tuned_by: ril}")
    with pytest.raises(UserError, match=r"untuned, the grid of ril \(format\) is not finished"):
        run_experiment(load(tmp_path, text), Recorder(), paths, open_worker=workers.open)
    assert workers.seen == []


def test_a_result_of_other_settings_is_refused(tmp_path, paths, workers):
    run_experiment(load(tmp_path, SMALL), Recorder(), paths, open_worker=workers.open)
    for old, new in (("0.1", "0.2"), ("steps: 2", "steps: 3"), ("split: dev", "split: test")):
        changed = load(tmp_path, SMALL.replace(old, new))
        with pytest.raises(UserError, match="other settings"):
            run_experiment(changed, Recorder(), paths, open_worker=workers.open)


def test_a_result_of_another_regime_is_refused(tmp_path, paths, workers, make_result):
    experiment = load(tmp_path, SMALL)
    write_result(make_result(experiment.jobs()[1], {}, digest="f" * 8), paths.runs)
    with pytest.raises(UserError, match="another format than the present one"):
        run_experiment(experiment, Recorder(), paths, open_worker=workers.open)


def test_two_labs_do_not_share_a_folder(tmp_path, paths, workers):
    experiment, inside, leave = load(tmp_path, SMALL), threading.Event(), threading.Event()

    @contextmanager
    def slow(number):
        inside.set()
        leave.wait(30)
        with workers.open(number) as work:
            yield work

    first = threading.Thread(
        target=run_experiment, args=(experiment, Recorder(), paths), kwargs={"open_worker": slow}
    )
    first.start()
    inside.wait(30)
    with pytest.raises(UserError, match="another lab"):
        run_experiment(experiment, Recorder(), paths, open_worker=workers.open)
    leave.set()
    first.join()
    assert len(workers.seen) == 7


KILLED = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import fake_result
from rilbench.lab.experiment import read_experiment
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.scheduler import run_experiment
from rilbench.lab.progress import LabProgress

root = Path({root!r})

@contextmanager
def open_worker(number):
    def work(job, settings, report):
        with (root / "calls").open("a") as file:
            file.write(job.label + "\\n")
        time.sleep(0.2)
        return fake_result(job, settings)
    yield work

with LabProgress() as view:
    paths = LabPaths(results=root / "results", work=root / "work")
    run_experiment(read_experiment(root / "e.yaml"), view, paths, open_worker=open_worker)
"""


@pytest.mark.integration
def test_a_killed_lab_loses_and_repeats_nothing(tmp_path, paths):
    experiment = load(tmp_path, SMALL.replace("[1, 2, 3]", "[1, 2, 3, 4, 5, 6]"))
    code = KILLED.format(tests=str(TESTS), root=str(tmp_path))
    command = [sys.executable, "-c", textwrap.dedent(code)]
    finished: dict[str, float] = {}
    for kills in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(paths.runs.rglob("*.json"))) < 3 * (kills + 1):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for path in paths.runs.rglob("*.json"):
            assert finished.setdefault(str(path), path.stat().st_mtime_ns) == (
                path.stat().st_mtime_ns
            ), "a finished result was written again"
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=60)
    assert len(read_results(paths.runs, "small")) == len(experiment.jobs()) == 13
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) <= 13 + 2 * 3, "only what ran when it was killed was done again"
