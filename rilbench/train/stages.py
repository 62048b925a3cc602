"""The stages of a run: collect → discriminator → ril → export. Each is skipped when it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.judge.server import rule_judge
from rilbench.recipe import Recipe
from rilbench.train.checks import check_judge, check_recipe, check_trackers, read_inputs
from rilbench.train.collecting import collect_all
from rilbench.train.export import export
from rilbench.train.run_folder import Run, View, forget_after, last_step, open_run
from rilbench.train.session import Session
from rilbench.train.verl_data import prepare_data

__all__ = ["Run", "View", "check_recipe", "check_trackers", "open_run", "train"]


def train(
    run: Run, view: View, trackers: Sequence[str] = (), session: Session | None = None
) -> Path:
    """Run every stage that is not done yet, and return the exported checkpoint.

    Args:
        session: where verl is up already; None: a process for this run alone.

    Raises:
        UserError: a model, the data, a server or the training failed; what was done is kept.
    """
    lock = FileLock(run.folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _train(run, view, trackers, session)
    except Timeout as error:
        raise UserError(f"another process is training {run.folder}; wait for it") from error


def _train(run: Run, view: View, trackers: Sequence[str], session: Session | None) -> Path:
    if run.finished:
        return run.checkpoint
    found = read_inputs(run.recipe)
    if found.plans:
        with FileLock(run.collection.with_name(f".{run.collection.name}.lock")):
            collect_all(run, found.plans, found.student, found.questions, view)
    prepare_data(run, found.plans, found.questions, found.dev)
    _run_trainer(run, found.student, view, trackers, session)
    return export(run, found.student, view)


# ---- discriminator and ril: one process, since starting verl takes a minute


def _run_trainer(
    run: Run,
    student: Checkpoint,
    view: View,
    trackers: Sequence[str],
    session: Session | None,
) -> None:
    import yaml

    from rilbench.train.verl_config import agent_loop_part

    step = last_step(run)
    if run.recipe.imitates and (run.folder / "discriminator" / "done").exists():
        view.stage("discriminator", "skipped")
    if step >= run.recipe.schedule.steps:
        view.stage(run.recipe.method, "skipped")
        return
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
        loop = yaml.safe_dump(agent_loop_part(run.recipe, url, model))
        (run.folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
        job_file = run.folder / "data" / "job.json"
        job_file.write_text(json.dumps(job, indent=2), encoding="utf-8")
        view.stage(run.recipe.method, "running")
        log = run.folder / "logs" / "trainer.log"
        with nullcontext(session) if session else Session(log, keep=False) as verl:
            verl.train(job_file, run.recipe.hardware.device, view.line)
    view.stage(run.recipe.method, "done")


@contextmanager
def _judge(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """The judge's address and the model to ask for there."""
    check_judge(recipe)
    if recipe.judge.url:
        yield recipe.judge.url, "" if recipe.judge.model == "rule" else recipe.judge.model
    else:
        with rule_judge() as url:
            yield url, ""
