"""The choice of learning rate and β: for each regime and method the grid's best cell on dev."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.lab.experiment import Experiment, RunSpec, Settings
from rilbench.lab.run_result import RunResult
from rilbench.paths import whole_file

Tuned = dict[str, dict[str, dict[str, Any]]]
"""regime → entry of the grid → ``settings``, ``mean`` (of the chosen cell), ``cells`` (means)."""


def choose(experiment: Experiment, results: Iterable[RunResult]) -> Tuned:
    """Choose for every regime and entry whose cells have all finished, with all seeds.

    The best mean over the seeds wins; among equal ones the smaller learning rate, then the larger
    β. A failed run counts as the lowest score of all.
    """
    by_job = {(result.regime, result.name, result.seed): result for result in results}
    grids: dict[str, list[RunSpec]] = {}
    for spec in experiment.runs:
        if spec.cell:
            grids.setdefault(spec.entry, []).append(spec)
    tuned: Tuned = {}
    for regime in experiment.regimes:
        for entry, specs in grids.items():
            if regime not in (specs[0].only or experiment.regimes):
                continue
            jobs = [[(regime, spec.name, seed) for seed in experiment.seeds] for spec in specs]
            if all(job in by_job for cell in jobs for job in cell):
                means = [
                    _mean([by_job[job] for job in cell], experiment.benchmarks) for cell in jobs
                ]
                tuned.setdefault(regime, {})[entry] = _best(specs, means)
    return tuned


def _mean(results: Sequence[RunResult], benchmarks: Sequence[str]) -> float:
    means = [result.mean(benchmarks) for result in results]
    known = [mean for mean in means if mean is not None]
    return statistics.fmean(known) if len(known) == len(means) else -math.inf


def _best(specs: Sequence[RunSpec], means: Sequence[float]) -> dict[str, Any]:
    def preference(i: int) -> tuple[float, float, float]:
        cell = specs[i].cell
        lr = sum(float(v) for k, v in cell.items() if k.endswith(".lr"))
        kl_coef = sum(float(v) for k, v in cell.items() if k.endswith(".kl_coef"))
        return (-round(means[i], 6), lr, -kl_coef)

    best = min(range(len(specs)), key=preference)
    rounded = [None if math.isinf(mean) else round(mean, 2) for mean in means]
    return {
        "settings": dict(specs[best].cell),
        "mean": rounded[best],
        "cells": {spec.name: mean for spec, mean in zip(specs, rounded, strict=True)},
    }


def write_tuned(tuned: Tuned, path: Path) -> None:
    """Write the choice atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(tuned, indent=2) + "\n", encoding="utf-8")


def read_tuned(path: Path) -> Tuned:
    """Read the choice; empty when the file does not exist.

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


def settings_for(spec: RunSpec, regime: str, tuned: Mapping[str, Any]) -> Settings | None:
    """Return the chosen settings that a run takes over; None while a grid is unfinished."""
    settings: dict[str, Any] = {}
    for entry in spec.tuned_by:
        chosen = tuned.get(regime, {}).get(entry)
        if chosen is None:
            return None
        settings.update(chosen["settings"])
    return settings
