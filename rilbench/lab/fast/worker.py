"""A worker of the fast engine: trains one run after another in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from rilbench.checkpoint import Labels, write_labels
from rilbench.config import Recipe
from rilbench.errors import UserError
from rilbench.evaluate.kit_session import Kit
from rilbench.lab.experiment import ACCEPTED, STUDENT, Job, Settings
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES, Regime
from rilbench.lab.run_result import RunCost, RunResult
from rilbench.lab.scheduler import Work
from rilbench.lab.worker import Report, evaluated_result, new_result, not_finite
from rilbench.train.pipeline.cost import TOKENS

if TYPE_CHECKING:
    from rilbench.lab.fast.models import Costs


@contextmanager
def fast_worker(number: int, paths: LabPaths) -> Iterator[Work]:
    """Open a worker: its process trains and evaluates, and keeps its kit from run to run.

    Two workers in threads of one process would wait for each other's Python.
    """
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(number, paths, its))
    process.start()
    its.close()  # ours alone is open here: it ends when the process does

    def work(job: Job, tuned: Settings, report: Report) -> RunResult:
        try:
            ours.send((job, tuned))
            while True:
                reply = ours.recv()
                if isinstance(reply, str):
                    report(reply)
                elif isinstance(reply, UserError):
                    raise reply
                else:
                    result: RunResult = reply
                    return result
        except (EOFError, ConnectionError) as error:
            raise UserError(
                f"the process of worker {number} has ended; its error is above, and without one "
                "memory was short: use --workers 1, and call again"
            ) from error

    try:
        yield work
    finally:
        ours.close()
        process.join()


def _serve(number: int, paths: LabPaths, lab: Connection) -> None:
    """One job after another, until the lab closes its end, or has ended."""
    from transformers.utils import logging

    # The lab hears Ctrl-C, and lets the run finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable_progress_bar()  # transformers' would disturb ours
    logs = paths.work / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with suppress(EOFError, ConnectionError), Kit(logs / f"fast-kit-{number}.log") as kit:
        while True:
            job, tuned = lab.recv()
            try:
                reply: RunResult | UserError = _do(number, paths, kit, job, tuned, lab.send)
            except UserError as error:
                reply = error
            lab.send(reply)


def _do(
    number: int, paths: LabPaths, kit: Kit, job: Job, tuned: Settings, say: Report
) -> RunResult:
    """One job, in the worker's process."""
    from rilbench.lab.fast.models import regime_folder

    regime = REGIMES[job.student]
    folder = regime_folder(regime, paths.regimes, say)
    recipe = job.recipe(tuned, folder)
    made = dataclasses.replace(
        new_result(job, tuned, recipe, folder / STUDENT),
        engine=job.engine if job.spec.method else "",
        responses=job.spec.responses,
        regime=regime.digest,
    )
    if job.spec.model:
        model = folder / job.spec.model
        return evaluated_result(made, model, job, paths, number, kit, say)
    run = paths.run_folder(job.experiment, job.student, job.spec.name, job.seed)
    shutil.rmtree(run, ignore_errors=True)  # a run takes a minute: one that was killed starts again
    result, checkpoint = _train(made, regime, folder, recipe, run, say)
    if checkpoint is not None:
        result = evaluated_result(result, checkpoint, job, paths, number, kit, say)
    return result


def _train(
    made: RunResult, regime: Regime, folder: Path, recipe: Recipe, run: Path, say: Report
) -> tuple[RunResult, Path | None]:
    """Train; the checkpoint is None where the numbers stopped being finite."""
    from rilbench.lab.fast.engine import FastRun
    from rilbench.lab.fast.models import accepted, training_data
    from rilbench.train.nan_guard import NotFiniteError
    from rilbench.train.pipeline.ledger_summary import curves, read_steps

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
            student=made.student,
            method=recipe.method_label,
            teacher=recipe.teacher_label,
            run=f"{made.name}-{made.seed}",
        )
        write_labels(checkpoint, labels)
    result = dataclasses.replace(
        made,
        failure=None if checkpoint else not_finite(run),
        curves=curves(read_steps(run / "metrics.jsonl")),
        cost=_cost(run, costs, recipe, trained.cpu_seconds),
    )
    return result, checkpoint


def _cost(run: Path, costs: Costs, recipe: Recipe, seconds: Mapping[str, float]) -> RunCost:
    """What a run cost, with all of the shared collection that its method needs."""
    counts = dict.fromkeys(TOKENS, 0)
    for name in ("sft.jsonl", "metrics.jsonl"):
        file = run / name
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            values = json.loads(line)
            for key in counts:
                counts[key] += values.get(key, 0)
    method = recipe.method_spec
    needed = list(recipe.teachers.names) if method.uses_teachers or recipe.sft_on_teachers else []
    needed += [STUDENT] if method.uses_discriminator else []
    collect = sum(costs[name]["cpu_seconds"] for name in needed)
    rounded = {stage: round(spent, 1) for stage, spent in {"collect": collect, **seconds}.items()}
    return RunCost(
        **counts,
        collected_tokens=int(sum(costs[name]["tokens"] for name in needed)),
        cpu_seconds=rounded,
    )
