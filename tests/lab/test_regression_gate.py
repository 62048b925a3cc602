import dataclasses
import json
from contextlib import contextmanager

import numpy as np
import pytest

from rilbench.check.baseline import read_baseline, write_baseline
from rilbench.check.metrics import TRAINING
from rilbench.errors import UserError
from rilbench.lab import regression_gate as gates
from rilbench.lab.experiment import read_experiment
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.progress import LabProgress
from rilbench.lab.run_result import read_results
from rilbench.ledger import Ledger
from rilbench.resources import resource

EXPERIMENT = read_experiment(resource("recipes/lab/gate.yaml"))


def result(make_result, seed=31, mean=70.0, accuracy=0.8, answer=0.6, step=5.0):
    job = dataclasses.replace(EXPERIMENT.jobs()[0], seed=seed)
    made = make_result(job, {})
    curves = {
        "discriminator_accuracy": [accuracy] * 12,
        "answer_reward_student": [0.1] * 8 + [answer] * 4,
    }
    metrics = {"step_cpu_seconds": step, "yardstick_seconds": 0.05, "memory_gb": 1.5}
    scores = dict.fromkeys(made.scores, mean)
    return dataclasses.replace(made, curves=curves, scores=scores, metrics=metrics)


@pytest.fixture
def calibration(make_result):
    rng = np.random.default_rng(2)
    spread = [1.5, 0.02, 0.02, 0.1]
    return [
        result(make_result, seed, *(np.array([70, 0.8, 0.6, 5]) + rng.normal(size=4) * spread))
        for seed in EXPERIMENT.seeds
    ]


@contextmanager
def fake_worker(number, make):
    yield lambda job, settings, report: make(job)


@pytest.fixture
def lab(tmp_path, make_result, calibration):
    """Calibrates and checks with given results instead of runs."""
    paths = LabPaths(tmp_path / "results", tmp_path / "work", tmp_path / "baseline.json")
    by_seed = {each.seed: each for each in calibration}

    class Lab:
        """The gate on given results."""

        def __init__(self):
            self.paths = paths

        def open_worker(self, number):
            return fake_worker(number, lambda job: by_seed[job.seed])

        def update(self, reason="nine seeds"):
            with LabProgress() as view:
                return gates.update_gate(view, reason, paths, open_worker=self.open_worker)

        def check(self, made):
            by_seed[gates.CHECK_SEED] = made
            with LabProgress() as view:
                found = gates.run_gate(view, paths, self.open_worker)
            return {each.metric: each.state for each in found if not each.open}

    return Lab()


def test_a_clean_run_passes_and_each_kind_of_drop_fails(lab, make_result):
    lab.update()
    seed = gates.CHECK_SEED
    assert lab.check(result(make_result, seed)) == {}
    assert lab.check(result(make_result, seed, mean=60.0))["mean"] == "failed"
    assert lab.check(result(make_result, seed, accuracy=0.5)) == {
        "discriminator_accuracy": "failed"
    }
    assert lab.check(result(make_result, seed, answer=0.3)) == {"answer_reward_student": "failed"}
    assert lab.check(result(make_result, seed, step=9.0)) == {"step_time": "failed"}
    unmeasured = dataclasses.replace(result(make_result, seed), metrics={}, curves={})
    assert lab.check(unmeasured) == dict.fromkeys(TRAINING, "not measured")


def test_the_calibration_is_an_entry_like_any_other(lab):
    done = lab.update("why")
    assert read_baseline(lab.paths.baseline) == done.baseline
    (entry,) = done.baseline.entries
    assert entry.seeds == tuple(EXPERIMENT.seeds)
    assert (entry.suite, entry.student, entry.method, entry.teacher) == (
        *("nano-dev", "nano-format", "ril"),
        "both",
    )
    assert done.baseline.history[0].reason == "why"
    assert lab.update("again").changed == ()


def test_the_check_leaves_its_result_in_the_work_folder(lab, make_result):
    lab.update()
    for mean in (70.0, 55.0):
        lab.check(result(make_result, gates.CHECK_SEED, mean=mean))
        with Ledger.open_read(lab.paths.work / "gate" / "checked.db") as ledger:
            (found,) = ledger.evaluations()
            assert found.scores[0].value == mean
    assert not (lab.paths.runs / "gate" / "format" / f"ril-{gates.CHECK_SEED}.json").exists()


def test_a_run_that_cannot_be_checked_is_refused(lab, make_result, failed_result):
    with pytest.raises(UserError, match="does not exist"):
        lab.check(result(make_result, gates.CHECK_SEED))
    lab.update()
    job = dataclasses.replace(EXPERIMENT.jobs()[0], seed=gates.CHECK_SEED)
    with pytest.raises(UserError, match="the loss is NaN"):
        lab.check(failed_result(job, {}))
    baseline = read_baseline(lab.paths.baseline)
    other = dataclasses.replace(baseline.entries[0], family="0" * 16)
    write_baseline(dataclasses.replace(baseline, entries=(other,)), lab.paths.baseline)
    with pytest.raises(UserError, match="no entry of this run"):
        lab.check(result(make_result, gates.CHECK_SEED))


# ---- the committed baseline


ROOT = resource("recipes").parent
COMMITTED = ROOT / LabPaths().baseline


@pytest.fixture
def stored():
    if not COMMITTED.exists():
        pytest.skip("the gate is not calibrated yet: make results")
    return json.loads(COMMITTED.read_text())


def test_the_committed_baseline_is_sharp_and_quiet(stored, tmp_path):
    assert stored["false_alarm"] <= 0.01
    assert min(entry["power"] for entry in stored["entries"]) >= 0.9
    write_baseline(read_baseline(COMMITTED), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == COMMITTED.read_bytes()


def test_the_committed_baseline_is_of_the_committed_results(stored, tmp_path):
    (entry,) = [each for each in stored["entries"] if each["suite"] == "nano-dev"]
    results = read_results(ROOT / LabPaths().runs, "gate")
    assert entry["seeds"] == [each.seed for each in results]
    for metric in entry["metrics"]:
        if metric["name"] in results[0].scores:
            assert metric["values"] == [each.scores[metric["name"]] for each in results]
