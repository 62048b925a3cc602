"""A worker of the lab: trains and evaluates one run after another in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import Recipe
from rilbench.errors import UserError
from rilbench.evaluate.kit_session import Kit
from rilbench.lab.experiment import STUDENT, SUITE, Job, Settings
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES
from rilbench.lab.run_result import RunResult, outcomes_by_benchmark
from rilbench.ledger import Evaluation, utc_now
from rilbench.paths import nano_folder

if TYPE_CHECKING:
    from rilbench.lab.scheduler import Work

Report = Callable[[str], None]
"""Called with a few words about what the worker does now."""


@contextmanager
def open_worker(number: int, paths: LabPaths) -> Iterator[Work]:
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
    with suppress(EOFError, ConnectionError), Kit(logs / f"kit-{number}.log") as kit:
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

    regime = REGIMES[job.regime]
    folder = regime_folder(regime, paths.regimes, say)
    recipe = job.recipe(tuned, folder)
    result = dataclasses.replace(
        new_result(job, tuned, recipe, folder / STUDENT),
        engine=job.engine if job.spec.method else "",
        responses=job.spec.responses,
        digest=regime.digest,
    )
    if job.spec.model:
        return evaluated_result(result, folder / job.spec.model, job, paths, number, kit, say)
    run = paths.run_folder(job.experiment, job.regime, job.spec.name, job.seed)
    if job.engine == "fast":
        from rilbench.lab.fast_run import train_fast as train
    else:
        from rilbench.lab.verl_run import train_with_verl as train
    result, checkpoint = train(result, regime, folder, recipe, run, say)
    if checkpoint is not None:
        result = evaluated_result(result, checkpoint, job, paths, number, kit, say)
    shutil.rmtree(run / "steps", ignore_errors=True)
    return result


def benchmark_files(split: str, paths: LabPaths) -> Path:
    """Return the folder with the benchmarks' files; those of dev are written on first use."""
    if split == "test":
        return nano_folder() / "benchmarks"
    from rilbench.nano.data import write_benchmarks

    folder = paths.work / "benchmarks" / split
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{split}.lock")):
        if not folder.exists():
            part = folder.with_name(f".{split}.part")
            shutil.rmtree(part, ignore_errors=True)
            write_benchmarks(part, split)
            part.rename(folder)
    return folder


# ---- the parts of a result


def new_result(job: Job, tuned: Settings, recipe: Recipe, start: Path) -> RunResult:
    """Return a result without what is measured; ``start`` is the student's checkpoint."""
    from rilbench.evaluate.provenance import code_version

    commit, dirty = code_version()
    return RunResult(
        experiment=job.experiment,
        regime=job.regime,
        name=job.spec.name,
        seed=job.seed,
        split=job.split,
        steps=0 if job.spec.model else job.steps,
        recipe=job.spec.recipe,
        method=job.spec.method,
        model=job.spec.model,
        settings=job.settings(tuned),
        recipe_fingerprint=recipe.fingerprint,
        start_fingerprint=inspect_checkpoint(start).fingerprint,
        commit=commit,
        dirty=dirty,
        created=utc_now()[:19] + "Z",
    )


def evaluated_result(
    result: RunResult,
    model: Path,
    job: Job,
    paths: LabPaths,
    number: int,
    kit: Kit,
    report: Report,
) -> RunResult:
    """Return a result with the scores of its model, by the kit; ``number`` is the worker's."""
    import torch

    from rilbench.evaluate.options import EvalOptions
    from rilbench.evaluate.run import evaluate_many

    report("evaluation")
    torch.set_num_threads(1)  # one core each: threads of two workers would compete
    options = EvalOptions(
        suite=SUITE,
        data=benchmark_files(job.split, paths),
        work=paths.work / "evaluation" / f"{job.split}-{number}",
        engine="batch",
        benchmarks=job.benchmarks,
    )
    (evaluation,) = evaluate_many([model], options, kit=kit)
    return dataclasses.replace(result, **evaluated(evaluation))


def evaluated(evaluation: Evaluation) -> dict[str, Any]:
    """Return the part of a result that an evaluation gives.

    Raises:
        UserError: a benchmark has no score, or a question no verdict.
    """
    scores: dict[str, float] = {}
    for score in evaluation.scores:
        if score.value is None:
            raise UserError(f"{score.benchmark} has no score; evaluate the run again")
        scores[score.benchmark] = round(score.value, 4)
    data = {score.benchmark: score.data_sha256 for score in evaluation.scores}
    kits = {f"{score.kit} {score.kit_version}" for score in evaluation.scores}
    return {
        "model_fingerprint": evaluation.fingerprint,
        "kit": ", ".join(sorted(kits)),
        "judge": ", ".join(sorted({score.judge for score in evaluation.scores if score.judge})),
        "scores": scores,
        "outcomes": outcomes_by_benchmark(evaluation.samples, data),
    }
