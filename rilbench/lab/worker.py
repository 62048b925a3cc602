"""A worker: trains one run after another in one session and evaluates each."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from rilbench.checkpoint import inspect_checkpoint
from rilbench.config import Recipe
from rilbench.errors import UserError
from rilbench.lab.experiment import STUDENT, SUITE, Job, Settings
from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.run_result import (
    METRICS,
    RunCost,
    RunFailure,
    RunResult,
    outcomes_by_benchmark,
)
from rilbench.ledger import Evaluation, utc_now
from rilbench.paths import locate, nano_folder

if TYPE_CHECKING:
    from rilbench.evaluate.kit_session import Kit
    from rilbench.lab.warm_session import WarmSession

Report = Callable[[str], None]
"""Called with a few words about what the worker does now."""


class Worker:
    """Trains and evaluates; `rilbench.lab.scheduler` calls it with one job after another.

    Args:
        number: the worker's number, from 1; names its folders.
        paths: where to read and write.
        session: trains; it starts with the first run.
        kit: scores; it starts with the first evaluation.
        starting: lock held while a session starts: two at once time out on two cores.
    """

    def __init__(
        self, number: int, paths: LabPaths, session: WarmSession, kit: Kit, starting: threading.Lock
    ) -> None:
        self.number, self.paths, self.session, self.kit = number, paths, session, kit
        self._starting: threading.Lock | None = starting

    def __call__(self, job: Job, tuned: Settings, report: Report) -> RunResult:
        """Do one job.

        Raises:
            UserError: it stopped for a reason that another try may not meet.
        """
        recipe = job.recipe(tuned, self.paths.collection(job.student))
        start = locate(recipe.student.model)
        if job.spec.model:
            name = job.spec.model
            model = recipe.student.model if name == STUDENT else recipe.teachers.models[name]
            result = new_result(job, tuned, recipe, start)
            return self._evaluated(result, locate(model), job, report)
        folder = self.paths.run_folder(job.experiment, job.student, job.spec.name, job.seed)
        failure = None
        try:
            checkpoint = self._train(folder, recipe, report)
        except UserError:
            failure = not_finite(folder)
            if failure is None:
                raise
        result = dataclasses.replace(
            new_result(job, tuned, recipe, start),
            failure=failure,
            **_measured(folder, recipe, self.paths),
        )
        if failure is not None:
            return result
        result = self._evaluated(result, checkpoint, job, report)
        shutil.rmtree(folder / "steps", ignore_errors=True)
        return result

    def _evaluated(self, result: RunResult, model: Path, job: Job, report: Report) -> RunResult:
        return evaluated_result(result, model, job, self.paths, self.number, self.kit, report)

    def _train(self, folder: Path, recipe: Recipe, report: Report) -> Path:
        from rilbench.train.pipeline.stages import open_run, train

        run = open_run(folder, recipe, resume=folder.exists())
        with self._first_start(recipe) as started:
            view = _WorkerProgress(recipe.schedule.steps, report, started)
            return train(run, view, session=self.session)

    @contextmanager
    def _first_start(self, recipe: Recipe) -> Iterator[Callable[[], None]]:
        """Keep other workers' sessions from starting until this one's first run takes steps."""
        lock = self._starting
        if lock is None or not recipe.method_spec.is_rl:  # SFT alone does not start the session
            yield lambda: None
            return
        self._starting = None
        lock.acquire()
        held = [lock]

        def started() -> None:
            if held:
                held.pop().release()

        try:
            yield started
        finally:
            started()


class _WorkerProgress:
    """Reports the progress of a run in a few words."""

    def __init__(self, steps: int, report: Report, started: Callable[[], None]) -> None:
        self.steps, self.report, self.started = steps, report, started

    def stage(self, name: str, state: str) -> None:
        if state == "running":
            self.report(name)

    def answers(self, model: str, done: int, total: int) -> None:
        self.report(f"collecting from {model} {done}/{total}")

    def note(self, text: str) -> None:
        """Notes are not shown: the lab's recipes give none."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        if kind != "sft":  # SFT is a process of its own, before the session starts
            self.started()
        if kind == "note":
            self.note(values["note"])
            return
        word, of = ("step", self.steps) if kind == "ril" else (kind, values.get("of", self.steps))
        self.report(f"{word} {values['step']}/{of}")


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
        student=job.student,
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


def _measured(folder: Path, recipe: Recipe, paths: LabPaths) -> dict[str, Any]:
    """Return the parts of a result that a run's folder gives."""
    from rilbench.train.pipeline.ledger_summary import curves, figures, read_steps

    steps = read_steps(folder / "metrics.jsonl")
    measured = figures(folder, steps)
    return {
        "curves": curves(steps),
        "cost": run_cost(folder, recipe, paths),
        "metrics": {name: round(measured[name], 6) for name in METRICS if measured.get(name)},
    }


def run_cost(folder: Path, recipe: Recipe, paths: LabPaths) -> RunCost:
    """Return what a run cost, with all of the shared collection that its method needs.

    Raises:
        UserError: the run or the collection did not record its cost.
    """
    from rilbench.train.pipeline.cost import TOKENS, read_collection_cost

    path = folder / "cost.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete the run and run it again"
        ) from error
    needed: list[str] = []
    if recipe.method_spec.uses_teachers or recipe.sft_on_teachers:
        needed += recipe.teachers.names
    if recipe.method_spec.uses_discriminator:
        needed.append(STUDENT)  # the discriminator is pre-trained on the student's responses
    collection = paths.collection(recipe.student.name)
    saved = read_collection_cost(collection)
    if not set(needed) <= set(saved) or None in run["cpu_seconds"].values():
        raise UserError(
            f"{collection} does not say what it cost; delete it, so that it is collected again"
        )
    return RunCost(
        **{key: int(run[key]) for key in TOKENS},
        collected_tokens=sum(int(saved[model]["tokens"]) for model in needed),
        cpu_seconds={stage: round(value, 1) for stage, value in run["cpu_seconds"].items()},
    )


def not_finite(folder: Path) -> RunFailure | None:
    """Return the step at which a run's numbers stopped being finite; None where they did not."""
    from rilbench.train.nan_guard import STOPPED

    path = folder / STOPPED
    if not path.exists():
        return None
    reason = path.read_text(encoding="utf-8").strip()
    step = re.search(r"step (\d+)", reason)
    return RunFailure(int(step[1]) if step else 0, reason)
