"""The lab's own run for the regression gate of continuous integration: short RIL on dev.

Its results go into a ledger, and `rilbench.check` does the rest as for any other model: runs of
several seeds become an entry of the baseline, and one more run is compared with it.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from rilbench.check.baseline import Baseline, read_baseline
from rilbench.check.compare import Verdict, check_ledger
from rilbench.check.thresholds import MIN_SEEDS
from rilbench.check.update import Update, update_baseline
from rilbench.errors import UserError
from rilbench.evaluate.provenance import code_version
from rilbench.lab.experiment import Experiment, read_experiment
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.run_result import RunResult, read_results
from rilbench.lab.scheduler import Listener, OpenWorker, run_experiment
from rilbench.lab.to_ledger import record_results, to_evaluation
from rilbench.ledger import Ledger
from rilbench.resources import resource

CHECK_SEED = 40
"""The seed of a check; the calibration uses others."""


def _experiment() -> Experiment:
    return read_experiment(resource("recipes/lab/gate.yaml"))


def gate_paths(paths: LabPaths | None) -> LabPaths:
    """Return paths with the gate's work folder: it collects fewer responses than experiments."""
    paths = paths or LabPaths()
    return dataclasses.replace(paths, work=paths.work / "gate")


def _write_ledger(path: Path, results: list[RunResult]) -> Path:
    """Write a new ledger of these results alone."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    with Ledger(path) as ledger:
        record_results(results, ledger)
    return path


def update_gate(
    listener: Listener,
    reason: str,
    paths: LabPaths | None = None,
    workers: int = 2,
    open_worker: OpenWorker | None = None,
) -> Update:
    """Finish the calibration's runs and write their entry of the baseline.

    Raises:
        UserError: a run stopped or failed.
    """
    paths = gate_paths(paths)
    experiment = _experiment()
    run_experiment(experiment, listener, paths, workers, open_worker=open_worker)
    results = read_results(paths.runs, experiment.name)
    for result in results:
        if result.failure:
            raise UserError(f"{result.file(paths.runs)} has failed: {result.failure.message}")
    if len(results) < MIN_SEEDS:
        raise UserError(
            f"{len(results)} runs are too few for the gate; finish the seeds of gate.yaml"
        )
    with Ledger.open_read(_write_ledger(paths.work / "calibration.db", results)) as ledger:
        return update_baseline(ledger, paths.baseline, reason, code_version())


def run_gate(
    listener: Listener, paths: LabPaths | None = None, open_worker: OpenWorker | None = None
) -> list[Verdict]:
    """Do one run with a seed that the calibration has not used, and compare it.

    Its result goes to the work folder and into ``checked.db`` there; those of an earlier check are
    deleted first.

    Raises:
        UserError: the baseline is missing or has no entry of this run, or the run failed.
    """
    paths = gate_paths(paths)
    baseline = read_baseline(paths.baseline)
    experiment = dataclasses.replace(_experiment(), seeds=(CHECK_SEED,))
    (job,) = experiment.jobs()
    here = LabPaths(results=paths.work / "checked", work=paths.work)
    shutil.rmtree(here.results, ignore_errors=True)
    folder = here.run_folder(job.experiment, job.regime, job.spec.name, job.seed)
    shutil.rmtree(folder, ignore_errors=True)
    run_experiment(experiment, listener, here, workers=1, open_worker=open_worker)
    (result,) = read_results(here.runs, experiment.name)
    return check_result(result, baseline, paths)


def check_result(result: RunResult, baseline: Baseline, paths: LabPaths) -> list[Verdict]:
    """Compare a finished run with its entry of the baseline.

    Raises:
        UserError: the run failed, or the baseline has no such entry.
    """
    if result.failure:
        raise UserError(f"the run failed: {result.failure.message}")
    evaluation = to_evaluation(result)
    labels = [entry.label for entry in baseline.entries if entry.matches(evaluation)]
    if not labels:
        raise UserError(
            f"{paths.baseline} has no entry of this run; calibrate it: "
            'rilbench lab gate --update --reason "..."'
        )
    with Ledger.open_read(_write_ledger(paths.work / "checked.db", [result])) as ledger:
        return check_ledger(ledger, baseline, labels)
