"""A run by the fast engine: training, and what it cost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rilbench.checkpoint import Labels, write_labels
from rilbench.config import Recipe
from rilbench.lab.experiment import ACCEPTED, STUDENT
from rilbench.lab.fast.engine import FastRun
from rilbench.lab.fast.models import Costs, accepted, training_data
from rilbench.lab.regimes import Regime
from rilbench.lab.run_result import RunCost, RunResult, failure_of
from rilbench.lab.worker import Report
from rilbench.train.nan_guard import NotFiniteError
from rilbench.train.pipeline.cost import TOKENS
from rilbench.train.pipeline.ledger_summary import curves, read_steps


def train_fast(
    made: RunResult, regime: Regime, folder: Path, recipe: Recipe, run: Path, say: Report
) -> tuple[RunResult, Path | None]:
    """Train; the checkpoint is None where the numbers stopped being finite.

    Args:
        made: the result, without what is measured.
        regime: the run's.
        folder: of the regime's models.
        recipe: the run's.
        run: the run's folder; a run that was killed starts again.
        say: shows progress.
    """
    shutil.rmtree(run, ignore_errors=True)
    data, costs = training_data(regime, folder, recipe, say)
    if made.responses == ACCEPTED:
        data = accepted(data)

    def on_step(stage: str, step: int, of: int) -> None:
        say(f"{stage} {step}/{of}")

    trained = FastRun(recipe, folder / STUDENT, data, run, on_step)
    checkpoint: Path | None = None
    with suppress(NotFiniteError):
        trained.run()
        checkpoint = run / "checkpoint"
        trained.policy.save(checkpoint)
        labels = Labels(
            student=f"nano-{made.regime}",
            method=recipe.method_label,
            teacher=recipe.teacher_label,
            run=f"{made.name}-{made.seed}",
        )
        write_labels(checkpoint, labels)
    result = dataclasses.replace(
        made,
        failure=None if checkpoint else failure_of(run),
        curves=curves(read_steps(run / "metrics.jsonl")),
        cost=_cost(run, costs, recipe, trained.cpu_seconds),
    )
    return result, checkpoint


def _cost(run: Path, costs: Costs, recipe: Recipe, seconds: Mapping[str, float]) -> RunCost:
    counts = dict.fromkeys(TOKENS, 0)
    for name in ("sft.jsonl", "metrics.jsonl"):
        file = run / name
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            values = json.loads(line)
            for key in counts:
                counts[key] += values.get(key, 0)
    return with_collection(counts, seconds, costs, recipe)


def with_collection(
    counts: Mapping[str, int], seconds: Mapping[str, float], costs: Costs, recipe: Recipe
) -> RunCost:
    """What a run cost, with all of the shared collection that its method needs.

    Args:
        counts: its tokens and judge calls, by `TOKENS`.
        seconds: CPU seconds of its stages.
        costs: of the saved responses.
        recipe: the run's.
    """
    method = recipe.method_spec
    needed = list(recipe.teachers.names) if recipe.uses_saved_responses else []
    needed += [STUDENT] if method.uses_discriminator else []
    collect = sum(costs[name]["cpu_seconds"] for name in needed)
    rounded = {stage: round(spent, 1) for stage, spent in {**seconds, "collect": collect}.items()}
    return RunCost(
        **counts,
        collected_tokens=int(sum(costs[name]["tokens"] for name in needed)),
        cpu_seconds=rounded,
    )
