"""What the recorded responses say about why: who is rewarded for what, step by step.

`rilbench lab mechanisms` reads the rollouts of finished runs, which are not committed, and writes
one small file; the report draws it.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.lab.lab_paths import LabPaths

COMMAND = "rilbench lab mechanisms"
EXPERIMENTS = ("headline", "regimes")
TEACHERS = ("72b", "78b")
RUNS = ("ril", "teacher-rows", "teacher-bonus")
"""The runs that differ in the reward of teacher responses alone."""
MEASURES = {
    "shared": "responses whose text the other side has too, in the same step",
    "similarity_student": "similarity reward of the student's responses",
    "similarity_72b": "similarity reward of that teacher's responses",
    "similarity_78b": "the same of the other",
    "advantage_teacher": "advantage of the teachers' responses",
    "advantage_right": "advantage of the student's right responses",
    "advantage_wrong": "advantage of the student's wrong responses",
}
"""What is measured in each step, as a mean over its responses."""

Mechanisms = dict[str, dict[str, dict[str, list[float | None]]]]
"""regime → run → measure → one value for each step, the mean over seeds."""


def measure_mechanisms(paths: LabPaths) -> Path:
    """Measure the runs whose rollouts are on this machine, and write the file.

    Regimes that are not here keep what was measured elsewhere.

    Raises:
        UserError: there are none.
    """
    found: Mechanisms = {}
    for experiment in EXPERIMENTS:
        for regime in sorted((paths.work / "runs" / experiment).glob("*")):
            for run in RUNS:
                folders = sorted(regime.glob(f"{run}-[0-9]*"))
                if folders:
                    found.setdefault(regime.name, {})[run] = _mean_over_seeds(folders)
    if not found:
        raise UserError(
            f"there are no rollouts in {paths.work / 'runs'}; first: rilbench lab run headline"
        )
    found = read_mechanisms(paths.mechanisms) | found
    text = json.dumps({"command": COMMAND, "regimes": found}, indent=1)
    paths.mechanisms.write_text(f"{text}\n", encoding="utf-8")
    return paths.mechanisms


def read_mechanisms(path: Path) -> Mechanisms:
    """Read the file; empty where it was not measured."""
    if not path.exists():
        return {}
    found: Mechanisms = json.loads(path.read_text(encoding="utf-8"))["regimes"]
    return found


def _mean_over_seeds(folders: Sequence[Path]) -> dict[str, list[float | None]]:
    steps = [_steps(folder) for folder in folders]
    return {
        name: [_mean(step[name] for step in same) for same in zip(*steps, strict=True)]
        for name in MEASURES
    }


def _steps(folder: Path) -> list[dict[str, float | None]]:
    files = folder.glob("rollouts/step_*.jsonl")
    by_step = {int(file.stem.removeprefix("step_")): file for file in files}
    lines = [by_step[step].read_text(encoding="utf-8").splitlines() for step in sorted(by_step)]
    return [measures([json.loads(line) for line in step]) for step in lines]


def measures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return `MEASURES` of a step's recorded responses; None where there is nothing to measure."""
    own = [row for row in rows if row["source"] == "student"]
    teachers = [row for row in rows if row["source"] != "student"]
    texts = [Counter(row["response"] for row in side) for side in (own, teachers)]
    both = texts[0].keys() & texts[1].keys()
    shared = sum(side[text] for side in texts for text in both) / len(rows)
    # Whether a response is right, also where the judge erred.
    right = [row for row in own if row["answer_reward_before_noise"]]
    wrong = [row for row in own if not row["answer_reward_before_noise"]]
    return {
        "shared": shared,
        "similarity_student": _mean(row["similarity_reward"] for row in own),
        **{
            f"similarity_{name}": _mean(
                row["similarity_reward"] for row in teachers if row["source"] == name
            )
            for name in TEACHERS
        },
        "advantage_teacher": _mean(row["advantage"] for row in teachers),
        "advantage_right": _mean(row["advantage"] for row in right),
        "advantage_wrong": _mean(row["advantage"] for row in wrong),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return round(statistics.fmean(present), 4) if present else None
