"""The gate of continuous integration: is one short run of RIL what such runs have always been?

Runs of other seeds calibrate it. A bound is the lower end of Student's prediction interval for one
more run, so it allows for the few seeds that it is made from. The chance that a clean run fails is
`ALPHA` in all, split over the checks.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rilbench.columns import COLUMNS
from rilbench.errors import UserError
from rilbench.lab.experiment import read_experiment
from rilbench.lab.places import Places
from rilbench.lab.row import Row, read_rows
from rilbench.lab.run import OpenLane, View, run_experiment
from rilbench.resources import resource
from rilbench.stats import prediction_bound

ALPHA = 0.009
"""Chance that a clean run fails any of the checks (family-wise, by Bonferroni).

Less than the 1 % that is promised, so that the simulation's own noise does not break the promise.
"""
SHARES = {"mean": 0.8, "discriminator_accuracy": 0.1, "answer_student": 0.1}
"""The checks, each of which must not fall below its bound, and their shares of `ALPHA`.

``mean``: of the 14. ``discriminator_accuracy``: mean over all steps. ``answer_student``: mean over
the last third of the steps.
"""
DROP = 10.0
"""The drop of ``mean``, in points, that the gate must find with a power of 90 %."""
REPETITIONS = 20_000
CHECK_SEED = 40
_SIMULATION_SEED = 14


@dataclass(frozen=True)
class Gate:
    """Bounds by check, and the calibration that they were made from."""

    bounds: Mapping[str, float]
    calibration: Mapping[str, Sequence[float]]


def measure(row: Row) -> dict[str, float]:
    """The figures that are checked.

    Raises:
        UserError: the run failed or lacks one of them.
    """
    mean = row.mean(COLUMNS)
    accuracy = _values(row, "discriminator_accuracy")
    answer = _values(row, "answer_student")
    if row.failure or mean is None or not accuracy or not answer:
        why = row.failure.message if row.failure else "a figure is missing"
        raise UserError(f"{row.student}/{row.name}-{row.seed} cannot pass the gate: {why}")
    return {
        "mean": mean,
        "discriminator_accuracy": statistics.fmean(accuracy),
        "answer_student": statistics.fmean(answer[-math.ceil(len(answer) / 3) :]),
    }


def _values(row: Row, name: str) -> list[float]:
    return [float(value) for value in row.curves.get(name, ()) if value is not None]


def calibrate(rows: Sequence[Row]) -> Gate:
    """Bounds from at least five finished runs.

    Raises:
        UserError: there are too few, or one of them failed.
    """
    if len(rows) < 5:
        raise UserError(f"{len(rows)} runs are too few for the gate; finish the seeds of gate.yaml")
    measured = [measure(row) for row in rows]
    calibration = {name: [round(each[name], 4) for each in measured] for name in SHARES}
    bounds = {
        name: round(prediction_bound(calibration[name], ALPHA * share), 4)
        for name, share in SHARES.items()
    }
    return Gate(bounds, calibration)


def check(row: Row, gate: Gate) -> list[str]:
    """What is wrong with a run; empty when it passes."""
    try:
        measured = measure(row)
    except UserError as error:
        return [str(error)]
    return [
        f"{name} is {measured[name]:.3f}, below {bound:.3f}"
        for name, bound in gate.bounds.items()
        if measured[name] < bound
    ]


# ---- what the bounds are worth


def simulate(gate: Gate, repetitions: int = REPETITIONS) -> dict[str, float]:
    """False alarms and power, with calibration and check drawn anew each time.

    The draws have the calibration's means and deviations; the checks are independent, which gives
    the most false alarms for their shares. ``wide``: with the deviation of ``mean`` at the upper
    end of its 95 % interval. ``heavy tails``: draws of Student's t with 5 degrees of freedom.
    """
    wide = _spread(gate.calibration["mean"])
    return {
        "false_alarm": _rate(gate, repetitions, drop=0.0),
        "false_alarm_heavy_tails": _rate(gate, repetitions, drop=0.0, heavy=True),
        "power": _rate(gate, repetitions, drop=DROP),
        "power_wide": _rate(gate, repetitions, drop=DROP, factor=wide),
    }


def _spread(values: Sequence[float]) -> float:
    """How many times larger the deviation may be than measured, at the end of its 95 % interval."""
    freedom = len(values) - 1
    return math.sqrt(freedom / float(stats.chi2.ppf(0.025, freedom)))


def _rate(
    gate: Gate, repetitions: int, drop: float, factor: float = 1.0, heavy: bool = False
) -> float:
    """Share of repetitions in which a run fails any check; its ``mean`` is lower by ``drop``."""
    rng = np.random.default_rng(_SIMULATION_SEED)
    failed = np.zeros(repetitions, dtype=bool)
    for name, values in gate.calibration.items():
        n = len(values)
        if heavy:
            draws = rng.standard_t(5, (repetitions, n + 1)) / math.sqrt(5 / 3)
        else:
            draws = rng.standard_normal((repetitions, n + 1))
        deviation = statistics.stdev(values) * (factor if name == "mean" else 1.0)
        draws = statistics.fmean(values) + deviation * draws
        seen, new = draws[:, :n], draws[:, n] - (drop if name == "mean" else 0.0)
        quantile = float(stats.t.ppf(1 - ALPHA * SHARES[name], n - 1))
        reach = quantile * seen.std(axis=1, ddof=1) * math.sqrt(1 + 1 / n)
        failed |= new < seen.mean(axis=1) - reach
    return float(failed.mean())


# ---- files and runs


def write_gate(gate: Gate, path: Path, story: Mapping[str, Any]) -> None:
    """Write bounds, calibration and the simulation, whole or not at all."""
    found = {
        "command": "rilbench lab gate --update",
        **story,
        "alpha": ALPHA,
        "drop": DROP,
        "repetitions": REPETITIONS,
        **{name: round(value, 4) for name, value in simulate(gate).items()},
        "bounds": dict(gate.bounds),
        "calibration": {name: list(values) for name, values in gate.calibration.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def read_gate(path: Path) -> Gate:
    """Read the bounds.

    Raises:
        UserError: they have not been calibrated, or the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Gate(found["bounds"], found["calibration"])
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run: rilbench lab gate --update") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); write it anew") from error


def _own(places: Places) -> Places:
    """With a work folder of the gate's: it collects fewer responses than the experiments."""
    return Places(results=places.results, work=places.work / "gate")


def update_gate(
    view: View, places: Places | None = None, lanes: int = 2, open_lane: OpenLane | None = None
) -> Gate:
    """Finish the calibration's runs and write the bounds.

    Raises:
        UserError: a run stopped or failed.
    """
    places = _own(places or Places())
    experiment = read_experiment(resource("recipes/lab/gate.yaml"))
    run_experiment(experiment, view, places, lanes, open_lane=open_lane)
    rows = read_rows(places.rows, experiment.name)
    gate = calibrate(rows)
    commits = sorted({row.commit or "" for row in rows})
    story = {"commits": commits, "steps": experiment.steps, "seeds": [row.seed for row in rows]}
    write_gate(gate, places.gate, story)
    return gate


def run_gate(
    view: View, places: Places | None = None, open_lane: OpenLane | None = None
) -> list[str]:
    """Do one run with a seed that the calibration has not seen, and check it.

    Its row goes to the work folder; what an earlier check left there is deleted first.

    Raises:
        UserError: the gate is not calibrated, or the run stopped.
    """
    places = _own(places or Places())
    gate = read_gate(places.gate)
    experiment = read_experiment(resource("recipes/lab/gate.yaml"))
    experiment = dataclasses.replace(experiment, seeds=(CHECK_SEED,))
    (job,) = experiment.jobs()
    there = Places(results=places.work / "checked", work=places.work)
    shutil.rmtree(there.results, ignore_errors=True)
    shutil.rmtree(there.run(job.experiment, job.student, job.spec.name, job.seed), True)
    run_experiment(experiment, view, there, lanes=1, open_lane=open_lane)
    (row,) = read_rows(there.rows, experiment.name)
    return check(row, gate)
