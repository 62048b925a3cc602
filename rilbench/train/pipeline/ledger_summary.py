"""What a run's folder says, as a row of the ledger."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rilbench.ledger import Ledger
from rilbench.ledger.records import Run as RunRow
from rilbench.ledger.records import utc_now
from rilbench.train.pipeline.cost import FILE
from rilbench.train.pipeline.run_folder import Run

CURVES = (
    *(
        "answer_reward_student",
        "answer_reward_teacher",
        "similarity_reward_student",
        "similarity_reward_teacher",
    ),
    *("discriminator_accuracy", "kl", "tokens_student", "tokens_teacher", "entropy"),
    *("groups_without_signal", "warnings", "dev_accuracy", "learning_rate"),
)
"""Figures of each step that are kept; see the documentation of ``metrics.jsonl``."""

_RATE = "actor/lr"
_MEMORY = "perf/max_memory_allocated_gb"
"""How verl's figure ends: of the device's memory, on a CPU of the policy's process."""


def summary(run: Run, status: str) -> RunRow:
    """Return a run as the ledger keeps it; its ``figures`` are those of `figures`.

    Args:
        run: may be unfinished.
        status: "running", "stopped" or "finished".
    """
    recipe, file = run.recipe, run.folder / "recipe.yaml"
    steps = read_steps(run.folder / "metrics.jsonl")
    begun = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.timezone.utc)
    return RunRow(
        name=run.folder.name,
        path=str(run.folder.resolve()),
        recipe_fingerprint=recipe.fingerprint,
        recipe_yaml=file.read_text(encoding="utf-8"),
        student=recipe.student.name,
        method=recipe.method_label,
        teacher=recipe.teacher_label,
        status=status,
        created=begun.isoformat(),
        finished=utc_now() if status == "finished" else None,
        family=recipe.family,
        seed=recipe.seed,
        metrics=figures(run.folder, steps),
        curves=curves(steps),
    )


def figures(folder: Path, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run cost and came to.

    Tokens, judge calls and CPU seconds by stage as in ``cost.json``, and there, of a run on a CPU,
    ``step_cpu_seconds`` and ``yardstick_seconds`` (`rilbench.train.pipeline.step_time`); ``steps``;
    ``step_seconds``, the median step; ``memory_gb``, the most that the trainer held.
    """
    seconds = [step["seconds"] for step in steps if step.get("seconds")]
    memory = [
        value
        for step in steps
        for name, value in step.get("verl", {}).items()
        if name.endswith(_MEMORY) and value
    ]
    cost = folder / FILE
    found: dict[str, Any] = json.loads(cost.read_text("utf-8")) if cost.exists() else {}
    return found | {
        "steps": len(steps),
        "step_seconds": statistics.median(seconds) if seconds else None,
        "memory_gb": max(memory, default=None),
    }


def record(run: Run, status: str, db: Path) -> None:
    """Write a run into the ledger.

    Raises:
        UserError: see `Ledger`.
    """
    with Ledger(db) as ledger:
        ledger.record_run(summary(run, status))


@contextmanager
def recorded(run: Run, db: Path) -> Iterator[None]:
    """While the body trains, the ledger says so; then whether it finished or was stopped.

    Raises:
        UserError: see `Ledger`; before the body where the ledger cannot be written.
    """
    record(run, "running", db)
    status = "stopped"
    try:
        yield
        status = "finished"
    finally:
        record(run, status, db)


def read_steps(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; none where there is no loop, as with SFT alone."""
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    # While it trains, or after a kill, the last line may be half there.
    steps = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{**step, "learning_rate": step.get("verl", {}).get(_RATE)} for step in steps]


def curves(steps: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """`CURVES` of the steps, to four digits; what no step has is left out."""
    return {
        name: [_short(step.get(name)) for step in steps]
        for name in CURVES
        if any(step.get(name) is not None for step in steps)
    }


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
