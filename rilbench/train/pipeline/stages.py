"""The stages of a run: collect → sft → discriminator → ril → export. Each is done once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from rilbench.checkpoint import Checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question
from rilbench.errors import UserError
from rilbench.judge.server import serve_judge
from rilbench.train.nan_guard import STOPPED
from rilbench.train.pipeline.collect_stage import Wanted, collect_all, student_wanted
from rilbench.train.pipeline.cost import CpuMeter, RunCost
from rilbench.train.pipeline.export import export
from rilbench.train.pipeline.preflight import (
    Inputs,
    check_inputs,
    check_judge,
    check_recipe,
    check_trackers,
    probe_judge,
    read_inputs,
)
from rilbench.train.pipeline.prepare_data import few_saved, prepare_data
from rilbench.train.pipeline.run_folder import (
    Run,
    View,
    forget_after,
    last_step,
    open_run,
    stop_reason,
)
from rilbench.train.pipeline.session import Session
from rilbench.train.pipeline.sft import fine_tune
from rilbench.train.pipeline.step_time import Pace, Yardstick
from rilbench.train.pipeline.trainer_process import Tail
from rilbench.train.verl.ray_devices import check_devices

__all__ = [
    "Run",
    "View",
    "check_inputs",
    "check_recipe",
    "check_trackers",
    "collect",
    "open_run",
    "train",
]


def train(
    run: Run, view: View, trackers: Sequence[str] = (), session: Session | None = None
) -> Path:
    """Run every stage that is not done yet, and return the exported checkpoint.

    Args:
        session: where verl is up already; None: a process for this run alone.

    Raises:
        UserError: a model, the data, a server or the training failed; what was done is kept.
    """
    with _alone(run):
        return _train(run, view, trackers, session)


def collect(run: Run, view: View) -> None:
    """The first stage alone: on a machine that reaches the teachers, while it does.

    A later `train` of the run finds what was collected. Responses of a student that SFT makes first
    are collected then.

    Raises:
        UserError: a model or the data failed; what was done is kept.
    """
    with _alone(run):
        found = read_inputs(run)
        _collect(run, found.wanted, found.questions, view)


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    try:
        with FileLock(run.folder / ".lock").acquire(timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"another process is training {run.folder}; wait for it") from error


def _train(run: Run, view: View, trackers: Sequence[str], session: Session | None) -> Path:
    if run.finished:
        return run.checkpoint
    found = read_inputs(run)
    if last_step(run) < run.recipe.schedule.steps:
        check_devices(run.recipe)
        probe_judge(run.recipe)
    (run.folder / STOPPED).unlink(missing_ok=True)
    cost = RunCost(run.folder)
    wanted = found.wanted
    if too_few := few_saved(run.recipe):
        view.note(too_few)
    _collect(run, wanted, found.questions, view)
    student = found.student
    if run.recipe.sft.steps:
        student = _fine_tune(run, found, cost, view)
        own = student_wanted(run, student)
        _collect(run, own, found.questions, view)
        wanted = [*wanted, *own]
    cost.collected((one.folder, one.plan.model) for one in wanted)
    if run.recipe.method_spec.is_rl:
        for text in prepare_data(run, student, wanted, found.questions, found.dev):
            view.note(text)
        log = run.folder / "logs" / "trainer.log"
        with nullcontext(session) if session else Session(log, keep=False) as verl:
            try:
                with CpuMeter(lambda spent: cost.book(_stage_now(run), spent), verl.cpu_seconds):
                    figures = _run_trainer(run, student, view, trackers, verl)
                cost.pace(figures)
            finally:
                cost.count()
    return export(run, found.student, view)


def _collect(run: Run, wanted: list[Wanted], questions: list[Question], view: View) -> None:
    """Collect under a lock for each folder, since runs may share one."""
    for folder in dict.fromkeys(one.folder for one in wanted):
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            part = [one for one in wanted if one.folder == folder]
            collect_all(run, part, questions, view)


def _fine_tune(run: Run, found: Inputs, cost: RunCost, view: View) -> Checkpoint:
    tail = Tail(run.folder / "sft" / "metrics.jsonl")

    def watch() -> None:
        for values in tail.new_lines():
            view.line("sft", {**values, "of": run.recipe.sft.steps})

    try:
        return fine_tune(
            run,
            found.student,
            found.wanted,
            found.questions,
            view,
            watch,
            lambda seconds: cost.book("sft", seconds),
        )
    finally:
        cost.count()


# ---- discriminator and ril: one process, since starting verl takes a minute


def _stage_now(run: Run) -> str:
    """Which of the two the trainer is at; starting verl belongs to the loop."""
    begun = (run.folder / "discriminator.jsonl").exists()
    return "discriminator" if begun and not _pretrained(run) else "ril"


def _pretrained(run: Run) -> bool:
    return (run.folder / "discriminator" / "done").exists()


def _run_trainer(
    run: Run, student: Checkpoint, view: View, trackers: Sequence[str], session: Session
) -> dict[str, float]:
    """Train, and return how fast it went: `Pace.figures`."""
    import yaml

    from rilbench.train.verl.config import agent_loop_part

    step = last_step(run)
    if run.recipe.method_spec.uses_discriminator and _pretrained(run):
        view.stage("discriminator", "skipped")
    if step >= run.recipe.schedule.steps:
        view.stage(run.recipe.method, "skipped")
        return {}
    forget_after(run.folder, step)
    with _judge(run.recipe) as (url, model):
        job = {
            "run_dir": str(run.folder.resolve()),
            "model": str(student.path),
            "resume_from": str((run.folder / "steps" / f"global_step_{step}").resolve())
            if step
            else "",
            "trackers": list(trackers),
        }
        cache = (run.folder / "judge.jsonl").resolve() if run.recipe.judge.url else None
        loop = yaml.safe_dump(agent_loop_part(run.recipe, url, model, cache))
        (run.folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
        job_file = run.folder / "data" / "job.json"
        job_file.write_text(json.dumps(job, indent=2), encoding="utf-8")
        view.stage(run.recipe.method, "running")
        device = run.recipe.hardware.device
        pace = Pace(session.cpu_seconds, Yardstick()) if device == "cpu" else None
        try:
            session.train(job_file, device, pace.watching(view.line) if pace else view.line)
        except UserError as error:
            reason = stop_reason(run)
            if reason is None:
                raise
            if ";" in reason:
                raise UserError(reason) from error
            raise UserError(
                f"{reason}; rollouts/ has the step's responses and --resume starts from the "
                "weights saved before it; if it comes again, lower the rates in another run"
            ) from error
    view.stage(run.recipe.method, "done")
    return pace.figures if pace else {}


@contextmanager
def _judge(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The judge's address and the model to ask for there."""
    check_judge(recipe)
    if recipe.judge.url:
        yield recipe.judge.url, "" if recipe.judge.model == "rule" else recipe.judge.model
    else:
        with serve_judge(recipe.judge.model) as url:
            yield url, ""
