"""One lane: trains one run after another in one session, evaluates each, and makes its row."""

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
from rilbench.lab.experiment import STUDENT, Job, Settings
from rilbench.lab.lab_paths import Places
from rilbench.lab.run_result import FIGURES, Cost, Failure, Row, outcomes
from rilbench.ledger import Evaluation, utc_now
from rilbench.paths import locate, nano_folder

if TYPE_CHECKING:
    from rilbench.evaluate.kit_session import Kit
    from rilbench.lab.warm_session import WarmSession

SUITE = "nano"
Report = Callable[[str], None]
"""Told in a few words what the lane does now."""


class Lane:
    """What trains and evaluates; `rilbench.lab.scheduler` calls it with one job after another.

    Args:
        number: of the lane, from 1; names its folders.
        places: where to read and write.
        session: trains; it starts with the first run.
        kit: scores; it starts with the first evaluation.
        starting: held while a session starts, since two at once time out on two cores.
    """

    def __init__(
        self, number: int, places: Places, session: WarmSession, kit: Kit, starting: threading.Lock
    ) -> None:
        self.number, self.places, self.session, self.kit = number, places, session, kit
        self._starting: threading.Lock | None = starting

    def __call__(self, job: Job, tuned: Settings, report: Report) -> Row:
        """Do one job.

        Raises:
            UserError: it stopped for a reason that another try may not meet.
        """
        recipe = job.recipe(tuned, self.places.collection(job.student))
        if job.spec.model:
            name = job.spec.model
            model = recipe.student.model if name == STUDENT else recipe.teachers.models[name]
            return self._evaluated(_new_row(job, tuned, recipe), locate(model), job, report)
        folder = self.places.run(job.experiment, job.student, job.spec.name, job.seed)
        try:
            checkpoint = self._train(folder, recipe, report)
        except UserError:
            failure = not_finite(folder)
            if failure is None:
                raise
            return _new_row(
                job, tuned, recipe, failure=failure, **_measured(folder, recipe, self.places)
            )
        row = _new_row(job, tuned, recipe, **_measured(folder, recipe, self.places))
        row = self._evaluated(row, checkpoint, job, report)
        shutil.rmtree(folder / "steps", ignore_errors=True)
        return row

    def _train(self, folder: Path, recipe: Recipe, report: Report) -> Path:
        from rilbench.train.pipeline.stages import open_run, train

        run = open_run(folder, recipe, resume=folder.exists())
        with self._first_start(recipe) as started:
            view = _LaneView(recipe.schedule.steps, report, started)
            return train(run, view, session=self.session)

    @contextmanager
    def _first_start(self, recipe: Recipe) -> Iterator[Callable[[], None]]:
        """Keep other lanes' sessions from starting until this one's first run takes steps."""
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

    def _evaluated(self, row: Row, model: Path, job: Job, report: Report) -> Row:
        import torch

        from rilbench.evaluate.options import EvalOptions
        from rilbench.evaluate.run import evaluate_many

        report("evaluation")
        torch.set_num_threads(1)  # a lane has one core; threads of two lanes wait for each other
        plan = EvalOptions(
            suite=SUITE,
            data=benchmark_files(job.split, self.places),
            work=self.places.work / "evaluation" / f"{job.split}-{self.number}",
            engine="batch",
            benchmarks=job.benchmarks,
        )
        (found,) = evaluate_many([model], plan, kit=self.kit)
        return dataclasses.replace(row, **evaluated(found))


class _LaneView:
    """What `rilbench.train.pipeline.stages` shows, in a few words."""

    def __init__(self, steps: int, report: Report, started: Callable[[], None]) -> None:
        self.steps, self.report, self.started = steps, report, started

    def stage(self, name: str, state: str) -> None:
        if state == "running":
            self.report(name)

    def answers(self, model: str, done: int, total: int) -> None:
        self.report(f"collecting from {model} {done}/{total}")

    def note(self, text: str) -> None:
        """The laboratory's recipes are written so that there is nothing to say."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        if kind != "sft":  # SFT is a process of its own, before the session starts
            self.started()
        word, of = ("step", self.steps) if kind == "ril" else (kind, values.get("of", self.steps))
        self.report(f"{word} {values['step']}/{of}")


def benchmark_files(split: str, places: Places) -> Path:
    """The folder with the benchmarks' files; those of dev are written on first use."""
    if split == "test":
        return nano_folder() / "benchmarks"
    from rilbench.nano.data import write_benchmarks

    folder = places.work / "benchmarks" / split
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{split}.lock")):
        if not folder.exists():
            part = folder.with_name(f".{split}.part")
            shutil.rmtree(part, ignore_errors=True)
            write_benchmarks(part, split)
            part.rename(folder)
    return folder


# ---- the parts of a row


def _new_row(job: Job, tuned: Settings, recipe: Recipe, **measured: Any) -> Row:
    from rilbench.evaluate.provenance import code_version

    commit, dirty = code_version()
    return Row(
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
        start_fingerprint=inspect_checkpoint(locate(recipe.student.model)).fingerprint,
        commit=commit,
        dirty=dirty,
        created=utc_now()[:19] + "Z",
        **measured,
    )


def evaluated(found: Evaluation) -> dict[str, Any]:
    """The part of a row that an evaluation gives.

    Raises:
        UserError: a benchmark has no score, or a question no verdict.
    """
    scores: dict[str, float] = {}
    for score in found.scores:
        if score.value is None:
            raise UserError(f"{score.benchmark} has no score; evaluate the run again")
        scores[score.benchmark] = round(score.value, 4)
    judges = sorted({score.judge for score in found.scores if score.judge})
    return {
        "model_fingerprint": found.fingerprint,
        "kit": ", ".join(sorted({f"{s.kit} {s.kit_version}" for s in found.scores})),
        "judge": ", ".join(judges),
        "scores": scores,
        "outcomes": outcomes(found.samples, {s.benchmark: s.data_sha256 for s in found.scores}),
    }


def _measured(folder: Path, recipe: Recipe, places: Places) -> dict[str, Any]:
    """The parts of a row that a run's folder gives."""
    from rilbench.train.pipeline.ledger_summary import curves, figures, read_steps

    steps = read_steps(folder / "metrics.jsonl")
    found = figures(folder, steps)
    return {
        "curves": curves(steps),
        "cost": cost(folder, recipe, places),
        "figures": {name: round(found[name], 6) for name in FIGURES if found.get(name)},
    }


def cost(folder: Path, recipe: Recipe, places: Places) -> Cost:
    """What a run cost, with all of the shared collection that its method needs.

    Raises:
        UserError: the run or the collection did not record its cost.
    """
    from rilbench.train.pipeline.cost import TOKENS, read_collection_cost

    own = _read_json(folder / "cost.json")
    collection = places.collection(recipe.student.name)
    saved = read_collection_cost(collection)
    missing = [model for model in _collected(recipe) if model not in saved]
    if missing or None in own["cpu_seconds"].values():
        raise UserError(
            f"{collection} does not say what it cost; delete it, so that it is collected again"
        )
    return Cost(
        **{key: int(own[key]) for key in TOKENS},
        collected_tokens=sum(int(saved[model]["tokens"]) for model in _collected(recipe)),
        cpu_seconds={stage: round(value, 1) for stage, value in own["cpu_seconds"].items()},
    )


def _collected(recipe: Recipe) -> list[str]:
    """The models whose saved responses the run needs."""
    teachers = (
        list(recipe.teachers.names)
        if recipe.method_spec.uses_teachers or recipe.sft_on_teachers
        else []
    )
    return [*teachers, STUDENT] if recipe.method_spec.uses_discriminator else teachers


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); delete the run and run it again"
        ) from error
    return found


def not_finite(folder: Path) -> Failure | None:
    """The step at which a run's figures stopped being numbers; None where they did not."""
    from rilbench.train.nan_guard import STOPPED

    path = folder / STOPPED
    if not path.exists():
        return None
    reason = path.read_text(encoding="utf-8").strip()
    step = re.search(r"step (\d+)", reason)
    return Failure(int(step[1]) if step else 0, reason)
