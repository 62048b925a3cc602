"""Rewrites the recipe fingerprints of the recorded runs: ``python results/refingerprint.py``.

Run it after a setting was renamed, added or dropped, and after the recorded settings were renamed.
A fingerprint covers every setting by name, so such a change gives the same recipe another one. The
script resolves each recorded run's recipe from ``recipes/lab`` and its recorded settings with
today's code. It rewrites the fingerprint in the run's file, and the runs' family in
``baseline.json``. Nothing is written if a run is of no experiment, of several, or of other settings
than its experiment has: then the recorded numbers are those of another recipe.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from pathlib import Path

from rilbench.errors import UserError
from rilbench.lab.experiment import Job, read_experiment
from rilbench.lab.grid_choice import Tuned, read_tuned, settings_for
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES
from rilbench.lab.regression_gate import gate_paths
from rilbench.lab.run_result import RunResult, read_result
from rilbench.lab.to_ledger import SUITES, family, labels
from rilbench.resources import resource

Key = tuple[str, str, str, int]


@functools.cache
def read_jobs() -> dict[Key, list[Job]]:
    """Return the jobs of every experiment in ``recipes/lab``, by what names a recorded run."""
    jobs: dict[Key, list[Job]] = {}
    for file in sorted(resource("recipes/lab").glob("*.yaml")):
        for job in read_experiment(file).jobs():
            key = (job.experiment, job.regime, job.spec.name, job.seed)
            jobs.setdefault(key, []).append(job)
    return jobs


def refingerprinted(
    result: RunResult, jobs: dict[Key, list[Job]], tuned: Tuned, paths: LabPaths
) -> RunResult:
    """Return the result with the fingerprint of its recipe.

    Raises:
        UserError: its recipe cannot be resolved, or is not the recorded one.
    """
    key = (result.experiment, result.regime, result.name, result.seed)
    name = f"{result.experiment}/{result.regime}/{result.name}-{result.seed}"
    found = jobs.get(key, [])
    if len(found) != 1:
        raise UserError(f"{name} is a run of {len(found)} experiments in recipes/lab, not of one")
    (job,) = found
    spec, chosen = job.spec, settings_for(job.spec, job.regime, tuned)
    if chosen is None:
        raise UserError(f"{name} needs a grid whose choice is not in {paths.tuned}")
    recorded = (result.split, result.steps, result.recipe, result.method, result.model)
    steps = 0 if spec.model else job.steps
    if recorded != (job.split, steps, spec.recipe, spec.method, spec.model) or (
        dict(result.settings) != job.settings(chosen)
    ):
        raise UserError(f"{name} was recorded with other settings than its experiment has")
    work = gate_paths(paths) if result.experiment == "gate" else paths
    recipe = job.recipe(chosen, REGIMES[job.regime].folder(work.regimes))
    return dataclasses.replace(result, recipe_fingerprint=recipe.fingerprint)


def update_baseline(path: Path, results: list[RunResult]) -> int:
    """Rewrite the families in the baseline's entries and labels; return how many changed.

    An entry is recognised by its labels, its seeds and the scores that calibrated it.

    Raises:
        UserError: an entry of a family has no recorded runs, or those of several families.
    """
    text = path.read_text(encoding="utf-8")
    changed = 0
    for entry in json.loads(text)["entries"]:
        if entry["family"] is None:
            continue
        scores = {c["name"]: c["values"] for c in entry["metrics"] if "questions" in c}
        runs: dict[str, list[RunResult]] = {}
        for result in results:
            if (SUITES[result.split], *labels(result)) == (
                entry["suite"],
                entry["student"],
                entry["method"],
                entry["teacher"],
            ):
                runs.setdefault(family(result), []).append(result)
        matching = [
            name
            for name, group in runs.items()
            if [run.seed for run in group] == entry["seeds"]
            and all([r.scores.get(b) for r in group] == v for b, v in scores.items() if b != "mean")
        ]
        if len(matching) != 1:
            raise UserError(
                f"{entry['label']} has the runs of {len(matching)} families, not of one"
            )
        if matching[0] != entry["family"]:
            changed += 1
            text = text.replace(entry["family"], matching[0])
            text = text.replace(f"@{entry['family'][:8]}", f"@{matching[0][:8]}")
    path.write_text(text, encoding="utf-8")
    return changed


def main(paths: LabPaths) -> None:
    """Rewrite the fingerprints of all recorded runs and of the baseline."""
    jobs, tuned = read_jobs(), read_tuned(paths.tuned)
    before = {file: read_result(file) for file in sorted(paths.runs.glob("*/*/*.json"))}
    after = [refingerprinted(result, jobs, tuned, paths) for result in before.values()]
    changed = 0
    for (file, old), new in zip(before.items(), after, strict=True):
        if new != old:
            changed += 1
            text = file.read_text(encoding="utf-8")
            text = text.replace(old.recipe_fingerprint, new.recipe_fingerprint)
            file.write_text(text, encoding="utf-8")
    entries = update_baseline(paths.baseline, after)
    sys.stdout.write(f"{changed} of {len(after)} runs and {entries} baseline entries changed\n")


if __name__ == "__main__":
    results = Path(__file__).parent
    try:
        main(LabPaths(results=results / "nano", baseline=results / "baseline.json"))
    except UserError as error:
        sys.exit(str(error))
