"""A run's folder as a row of the ledger."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rilbench.data.manifest import kept_manifests
from rilbench.ledger import Ledger
from rilbench.ledger.records import Run as RunRow
from rilbench.ledger.records import utc_now
from rilbench.train.pipeline.cost import FILE
from rilbench.train.pipeline.run_folder import Run

CURVES = (
    "answer_reward_student",
    "answer_reward_teacher",
    "similarity_reward_student",
    "similarity_reward_teacher",
    "discriminator_score_student",
    "discriminator_accuracy",
    "kl",
    "teacher_kl",
    "tokens_student",
    "tokens_teacher",
    "entropy",
    "groups_without_signal",
    "warnings",
    "dev_accuracy",
    "learning_rate",
)
"""Metrics that are kept for each step; see the documentation of ``metrics.jsonl``."""

_MEMORY = "perf/max_memory_allocated_gb"
"""End of verl's names for the memory in use: a device's, or on a CPU that of the policy process."""


def summary(run: Run, status: str) -> RunRow:
    """A run that is "running", "stopped" or "finished", as the ledger keeps it."""
    recipe, file = run.recipe, run.folder / "recipe.yaml"
    steps = read_steps(run.folder / "metrics.jsonl")
    created = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.timezone.utc)
    return RunRow(
        name=run.folder.name,
        path=str(run.folder.resolve()),
        recipe_fingerprint=recipe.fingerprint,
        recipe_yaml=file.read_text(encoding="utf-8"),
        student=recipe.student.name,
        method=recipe.method_label,
        teacher=recipe.teacher_label,
        status=status,
        created=created.isoformat(),
        finished=utc_now() if status == "finished" else None,
        family=recipe.family,
        seed=recipe.seed,
        metrics=figures(run.folder, steps) | _data(run.folder),
        curves=curves(steps),
    )


def figures(folder: Path, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """A run's cost and speed, from its folder and the steps of `read_steps`.

    The values of ``cost.json`` (tokens, judge calls, CPU seconds by stage and, on a CPU, the step
    time of `rilbench.train.pipeline.step_time`); the number of ``steps``; their median
    ``step_seconds``; ``memory_gb``, the most that the trainer held.
    """
    seconds = [step["seconds"] for step in steps if step.get("seconds")]
    memory = [
        value
        for step in steps
        for name, value in step.get("verl", {}).items()
        if name.endswith(_MEMORY) and value
    ]
    file = folder / FILE
    cost: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return cost | {
        "steps": len(steps),
        "step_seconds": statistics.median(seconds) if seconds else None,
        "memory_gb": max(memory, default=None),
    }


def _data(folder: Path) -> dict[str, Any]:
    """Where questions that ``rilbench data build`` made are from; empty without such."""
    found = {
        name: {each.digest: each.sources for each in manifests}
        for name, manifests in kept_manifests(folder).items()
    }
    return {"data": found} if found else {}


def record(run: Run, status: str, db: Path) -> None:
    """Write a run into the ledger.

    Raises:
        UserError: see `Ledger`.
    """
    with Ledger(db) as ledger:
        ledger.record_run(summary(run, status))


@contextmanager
def recorded(run: Run, db: Path) -> Iterator[None]:
    """Record a run as running while the body trains it, then as finished or stopped.

    Raises:
        UserError: see `Ledger`; before the body, if the ledger cannot be written.
    """
    record(run, "running", db)
    status = "stopped"
    try:
        yield
        status = "finished"
    finally:
        record(run, status, db)


def read_steps(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; empty without the file, as after SFT alone."""
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    # During training, or after a kill, the last line may be incomplete.
    steps = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{**step, "learning_rate": step.get("verl", {}).get("actor/lr")} for step in steps]


def curves(steps: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """`CURVES` of the steps to four digits, without those that no step has."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4) if math.isfinite(value) else None
        return value

    return {
        name: [short(step.get(name)) for step in steps]
        for name in CURVES
        if any(step.get(name) is not None for step in steps)
    }
