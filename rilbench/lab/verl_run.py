"""A run of a regime through verl: the product's own path, on the regime's saved responses."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from rilbench.config import Recipe
from rilbench.data.import_responses import import_responses
from rilbench.errors import UserError
from rilbench.lab.experiment import STUDENT
from rilbench.lab.fast.groups import TrainingData
from rilbench.lab.fast.models import prompts_file, training_data
from rilbench.lab.fast_run import with_collection
from rilbench.lab.regimes import Regime
from rilbench.lab.run_result import METRICS, RunResult, failure_of
from rilbench.lab.worker import Report
from rilbench.train.pipeline.cost import TOKENS
from rilbench.train.pipeline.ledger_summary import curves, figures, read_steps
from rilbench.train.pipeline.stages import open_run, train


def train_with_verl(
    made: RunResult, regime: Regime, folder: Path, recipe: Recipe, run: Path, say: Report
) -> tuple[RunResult, Path | None]:
    """Train as `rilbench train` does; the checkpoint is None where numbers stopped being finite.

    Args:
        made: the result, without what is measured.
        regime: the run's.
        folder: of the regime's models.
        recipe: the run's.
        run: the run's folder; a run that was killed goes on from its last saved step.
        say: shows progress.

    Raises:
        UserError: it stopped for a reason that another try may not meet.
    """
    data, costs = training_data(regime, folder, recipe, say)
    prompts = prompts_file(folder)
    recipe = dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, train=str(prompts)),
        collection=dataclasses.replace(
            recipe.collection, folder=str(_collection(folder, prompts, data))
        ),
    )
    failure, checkpoint = None, None
    try:
        opened = open_run(run, recipe, resume=run.exists())
        checkpoint = train(opened, _Progress(recipe.schedule.steps, say))
    except UserError:
        failure = failure_of(run)
        if failure is None:
            raise
    steps = read_steps(run / "metrics.jsonl")
    measured = figures(run, steps)
    cost = json.loads((run / "cost.json").read_text(encoding="utf-8"))
    spent = {stage: seconds or 0.0 for stage, seconds in cost["cpu_seconds"].items()}
    result = dataclasses.replace(
        made,
        failure=failure,
        curves=curves(steps),
        cost=with_collection({key: int(cost[key]) for key in TOKENS}, spent, costs, recipe),
        metrics={name: round(measured[name], 6) for name in METRICS if measured.get(name)},
    )
    return result, checkpoint


def _collection(folder: Path, prompts: Path, data: TrainingData) -> Path:
    """The regime's saved responses as a collection of the product, made on first use."""
    collection = folder / "collection"
    by_model: dict[str, dict[str, list[str]]] = {}
    for id_, models in data.saved.items():
        for name, responses in models.items():
            by_model.setdefault(name, {})[id_] = list(responses)
    by_model[STUDENT] = {id_: list(responses) for id_, responses in data.student_saved.items()}
    with FileLock(folder / ".collection.lock"):
        for name, texts_by_id in by_model.items():
            if (collection / f"{name}.parquet").exists():
                continue
            file = folder / f"{name}.jsonl"
            rows = ({"id": id_, "response": texts} for id_, texts in texts_by_id.items())
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            import_responses([file], [prompts], name, collection, {}, model=name)
            file.unlink()
    return collection


class _Progress:
    """Reports the progress of a run in a few words."""

    def __init__(self, steps: int, report: Report) -> None:
        self.steps, self.report = steps, report

    def stage(self, name: str, state: str) -> None:
        if state == "running":
            self.report(name)

    def answers(self, model: str, done: int, total: int) -> None:
        self.report(f"collecting from {model} {done}/{total}")

    def note(self, text: str) -> None:
        """Notes are not shown: the lab's recipes give none."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        if kind != "note":
            word = "step" if kind == "ril" else kind
            self.report(f"{word} {values['step']}/{values.get('of', self.steps)}")
