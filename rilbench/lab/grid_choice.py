"""The choice of rate and beta: for each student and method the grid's best cell on dev."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.lab.experiment import Experiment, RunSpec, Settings
from rilbench.lab.run_result import Row

Tuned = dict[str, dict[str, dict[str, Any]]]
"""student → entry of the grid → ``settings``, ``mean`` (of the chosen cell), ``cells`` (means)."""


def choose(experiment: Experiment, rows: Iterable[Row]) -> Tuned:
    """Choose for every student and entry whose cells have all finished, with all seeds.

    The best mean over the seeds wins; of equal ones the smaller rate, then the larger beta. A
    failed run counts as the lowest score of all.
    """
    found = {(row.student, row.name, row.seed): row for row in rows}
    tuned: Tuned = {}
    for student in experiment.students:
        for entry, specs in _grids(experiment).items():
            runs = [
                [found.get((student, s.name, seed)) for seed in experiment.seeds] for s in specs
            ]
            done = [[row for row in cell if row is not None] for cell in runs]
            if all(len(cell) == len(experiment.seeds) for cell in done):
                means = [_mean(cell, experiment.benchmarks) for cell in done]
                tuned.setdefault(student, {})[entry] = _best(specs, means)
    return tuned


def _grids(experiment: Experiment) -> dict[str, list[RunSpec]]:
    grids: dict[str, list[RunSpec]] = {}
    for spec in experiment.runs:
        if spec.cell:
            grids.setdefault(spec.entry, []).append(spec)
    return grids


def _mean(rows: Sequence[Row], columns: Sequence[str]) -> float:
    means = [row.mean(columns) for row in rows]
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if len(known) == len(means) else -math.inf


def _best(specs: Sequence[RunSpec], means: Sequence[float]) -> dict[str, Any]:
    def preference(i: int) -> tuple[float, float, float]:
        cell = specs[i].cell
        rate = sum(float(v) for k, v in cell.items() if k.endswith(".rate"))
        beta = sum(float(v) for k, v in cell.items() if k.endswith(".beta"))
        return (-round(means[i], 6), rate, -beta)

    best = min(range(len(specs)), key=preference)
    rounded = [None if math.isinf(mean) else round(mean, 2) for mean in means]
    return {
        "settings": dict(specs[best].cell),
        "mean": rounded[best],
        "cells": {spec.name: mean for spec, mean in zip(specs, rounded, strict=True)},
    }


def write_tuned(tuned: Tuned, path: Path) -> None:
    """Write the choice, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(tuned, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def read_tuned(path: Path) -> Tuned:
    """Read the choice; nothing is chosen when the file is not there.

    Raises:
        UserError: the file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        tuned: Tuned = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); run the grid again to write it") from error
    return tuned


def settings_for(spec: RunSpec, student: str, tuned: Mapping[str, Any]) -> Settings | None:
    """The chosen settings that a run takes over; None while a grid that it needs is unfinished."""
    settings: dict[str, Any] = {}
    for entry in spec.tuned_by:
        chosen = tuned.get(student, {}).get(entry)
        if chosen is None:
            return None
        settings.update(chosen["settings"])
    return settings
