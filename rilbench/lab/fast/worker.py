"""A worker of the fast engine: trains one run after another in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from rilbench.checkpoint import Labels, write_labels
from rilbench.config import Recipe
from rilbench.evaluate.kit_session import Kit
from rilbench.lab.experiment import ACCEPTED, STUDENT, Job, Settings
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.regimes import REGIMES, Regime
from rilbench.lab.run_result import RunCost, RunResult
from rilbench.lab.worker import evaluated_result, new_result, not_finite

Report = Callable[[str], None]


Work = Callable[[Job, Settings, Report], RunResult]


@contextmanager
def fast_worker(number: int, paths: LabPaths) -> Iterator[Work]:
    """Open a worker: its process trains and evaluates, and keeps its kit from run to run.

    Two workers in threads of one process would wait for each other's Python.
    """
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(1, mp_context=context) as pool:
        said: Any = manager.Queue()

        def work(job: Job, tuned: Settings, report: Report) -> RunResult:
            done = threading.Event()

            def pass_on() -> None:
                while not (done.is_set() and said.empty()):
                    if not said.empty():
                        report(said.get())
                    done.wait(0.3)

            listening = threading.Thread(target=pass_on, daemon=True)
            listening.start()
            try:
                return pool.submit(_do, number, paths, job, tuned, said).result()
            finally:
                done.set()
                listening.join()

        try:
            yield work
        finally:
            pool.submit(_close, _log(number, paths)).result()


def _log(number: int, paths: LabPaths) -> Path:
    return paths.work / "logs" / f"fast-kit-{number}.log"


@lru_cache(maxsize=1)
def _kit(log: Path) -> Kit:
    """The kit of this worker's process, from its first evaluation to the last."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return Kit(log)


def _close(log: Path) -> None:
    if _kit.cache_info().currsize:
        _kit(log).__exit__()


def _do(number: int, paths: LabPaths, job: Job, tuned: Settings, said: Any) -> RunResult:
    """One job, in the worker's process."""
    from transformers.utils import logging

    from rilbench.lab.fast.models import regime_folder

    logging.disable_progress_bar()  # transformers' would disturb ours
    kit = _kit(_log(number, paths))
    regime = REGIMES[job.student]
    folder = regime_folder(regime, paths.regimes, said.put)
    recipe = job.recipe(tuned, folder)
    start = folder / STUDENT
    if job.spec.model:
        model = start if job.spec.model == STUDENT else folder / job.spec.model
        result = new_result(job, tuned, recipe, start)
        return evaluated_result(result, model, job, paths, number, kit, said.put)
    run = paths.run_folder(job.experiment, job.student, job.spec.name, job.seed)
    shutil.rmtree(run, ignore_errors=True)  # a run takes a minute: one that was killed starts again
    result, checkpoint = _train(regime, folder, recipe, run, job, tuned, said.put)
    if checkpoint is not None:
        result = evaluated_result(result, checkpoint, job, paths, number, kit, said.put)
    return result


def _train(
    regime: Regime,
    folder: Path,
    recipe: Recipe,
    run: Path,
    job: Job,
    tuned: Settings,
    say: Report,
) -> tuple[RunResult, Path | None]:
    """Train; the checkpoint is None where the numbers stopped being finite."""
    from rilbench.lab.fast.engine import FastRun
    from rilbench.lab.fast.models import accepted, training_data
    from rilbench.train.nan_guard import NotFiniteError
    from rilbench.train.pipeline.ledger_summary import curves, read_steps

    data = training_data(regime, folder, recipe, say)
    if job.spec.responses == ACCEPTED:
        data = accepted(data)
    start = folder / STUDENT
    trained = FastRun(recipe, start, data, run, lambda stage, step, of: say(f"{stage} {step}/{of}"))
    checkpoint: Path | None = run / "checkpoint"
    try:
        trained.run()
    except NotFiniteError:
        checkpoint = None
    else:
        trained.policy.save(run / "checkpoint")
        labels = Labels(
            student=job.student,
            method=recipe.method_label,
            teacher=recipe.teacher_label,
            run=job.label,
        )
        write_labels(run / "checkpoint", labels)
    result = dataclasses.replace(
        new_result(job, tuned, recipe, start),
        engine="fast",
        responses=job.spec.responses,
        failure=not_finite(run) if checkpoint is None else None,
        curves=curves(read_steps(run / "metrics.jsonl")),
        cost=_cost(run, folder, recipe, trained.cpu_seconds),
    )
    return result, checkpoint


def _cost(run: Path, folder: Path, recipe: Recipe, seconds: dict[str, float]) -> RunCost:
    """What a run cost, with all of the shared collection that its method needs."""
    from rilbench.lab.fast.models import collection_cost

    counts = dict.fromkeys(("sampled_tokens", "teacher_tokens", "trained_tokens", "judge_calls"), 0)
    for name in ("sft.jsonl", "metrics.jsonl"):
        file = run / name
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            values = json.loads(line)
            for key in counts:
                counts[key] += values.get(key, 0)
    method = recipe.method_spec
    needed = list(recipe.teachers.names) if method.uses_teachers or recipe.sft_on_teachers else []
    needed += [STUDENT] if method.uses_discriminator else []
    saved = {name: each for name, each in collection_cost(folder).items() if name in needed}
    collect = sum(each["cpu_seconds"] for each in saved.values())
    rounded = {stage: round(spent, 1) for stage, spent in {"collect": collect, **seconds}.items()}
    return RunCost(
        **counts,
        collected_tokens=int(sum(each["tokens"] for each in saved.values())),
        cpu_seconds=rounded,
    )
