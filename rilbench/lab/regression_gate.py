"""The laboratory's own run for the gate of continuous integration: a short one of RIL, on dev.

Its rows go into a ledger, and `rilbench.check` does the rest, as for any other model: runs of
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
from rilbench.lab.lab_paths import Places
from rilbench.lab.run_result import Row, read_rows
from rilbench.lab.scheduler import OpenLane, View, run_experiment
from rilbench.lab.to_ledger import record_rows, to_evaluation
from rilbench.ledger import Ledger
from rilbench.resources import resource

CHECK_SEED = 40
"""Not one of those that calibrate."""


def _experiment() -> Experiment:
    return read_experiment(resource("recipes/lab/gate.yaml"))


def _own(places: Places) -> Places:
    """With a work folder of the gate's: it collects fewer responses than the experiments."""
    return dataclasses.replace(places, work=places.work / "gate")


def _ledger(path: Path, rows: list[Row]) -> Path:
    """Write a ledger of these rows alone."""
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        file.unlink(missing_ok=True)
    with Ledger(path) as ledger:
        record_rows(rows, ledger)
    return path


def update_gate(
    view: View,
    reason: str,
    places: Places | None = None,
    lanes: int = 2,
    open_lane: OpenLane | None = None,
) -> Update:
    """Finish the calibration's runs and write their entry of the baseline.

    Raises:
        UserError: a run stopped or failed.
    """
    places = _own(places or Places())
    experiment = _experiment()
    run_experiment(experiment, view, places, lanes, open_lane=open_lane)
    rows = read_rows(places.rows, experiment.name)
    for row in rows:
        if row.failure:
            raise UserError(f"{row.file(places.rows)} has failed ({row.failure.message}); mend it")
    if len(rows) < MIN_SEEDS:
        raise UserError(f"{len(rows)} runs are too few for the gate; finish the seeds of gate.yaml")
    with Ledger.open_read(_ledger(places.work / "calibration.db", rows)) as ledger:
        return update_baseline(ledger, places.baseline, reason, code_version())


def run_gate(
    view: View, places: Places | None = None, open_lane: OpenLane | None = None
) -> list[Verdict]:
    """Do one run with a seed that the calibration has not seen, and compare it.

    Its row goes to the work folder, and from there into ``checked.db`` beside it; what an earlier
    check left there is deleted first.

    Raises:
        UserError: the baseline is not there or has no entry of this run, or the run failed.
    """
    places = _own(places or Places())
    baseline = read_baseline(places.baseline)
    experiment = dataclasses.replace(_experiment(), seeds=(CHECK_SEED,))
    (job,) = experiment.jobs()
    there = Places(results=places.work / "checked", work=places.work)
    shutil.rmtree(there.results, ignore_errors=True)
    shutil.rmtree(there.run(job.experiment, job.student, job.spec.name, job.seed), True)
    run_experiment(experiment, view, there, lanes=1, open_lane=open_lane)
    (row,) = read_rows(there.rows, experiment.name)
    return check_row(row, baseline, places)


def check_row(row: Row, baseline: Baseline, places: Places) -> list[Verdict]:
    """Compare a finished run with its entry.

    Raises:
        UserError: it failed, or there is no such entry.
    """
    if row.failure:
        raise UserError(f"the run failed: {row.failure.message}")
    evaluation = to_evaluation(row)
    labels = [entry.label for entry in baseline.entries if entry.matches(evaluation)]
    if not labels:
        raise UserError(
            f"{places.baseline} has no entry of this run; calibrate it: "
            'rilbench lab gate --update --reason "..."'
        )
    with Ledger.open_read(_ledger(places.work / "checked.db", [row])) as ledger:
        return check_ledger(ledger, baseline, labels)
