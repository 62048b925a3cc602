"""The stages ``discriminator`` and ``ril`` (or another method), in one process of verl."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.judge.server import serve_judge
from rilbench.train.pipeline.cost import RunCost, metered
from rilbench.train.pipeline.preflight import Inputs
from rilbench.train.pipeline.prepare_data import prepare_data
from rilbench.train.pipeline.run_folder import Run, forget_after, last_step, stop_reason
from rilbench.train.pipeline.stage import Progress, note, running, skipped
from rilbench.train.pipeline.step_time import StepTimer, Yardstick
from rilbench.train.pipeline.trainer_process import Trainer, TrainerProcess
from rilbench.train.verl.config import DATASETS_CACHE, agent_loop_part

log = logging.getLogger(__name__)


def train_policy(
    run: Run,
    inputs: Inputs,
    cost: RunCost,
    progress: Progress,
    trackers: Sequence[str] = (),
    session: Trainer | None = None,
) -> None:
    """Pretrain the discriminator and train the policy (after SFT if any), from the last saved step.

    Raises:
        UserError: too few questions, or the training stopped; what was saved is kept.
    """
    recipe, step = run.recipe, last_step(run)
    pretrained = run.folder / "discriminator" / "done"
    if recipe.method_spec.uses_discriminator and pretrained.exists():
        skipped("discriminator", progress)
    if step >= recipe.schedule.steps:
        cost.count_tokens()
        skipped(recipe.method, progress)
        return
    for text in prepare_data(run, inputs.student, inputs.collections, inputs.questions, inputs.dev):
        note(text, progress)
    forget_after(run.folder, step)
    if step:
        log.info("resuming from step %d of %d", step, recipe.schedule.steps)

    def book(seconds: float) -> None:
        # The time until the first record of the pretraining is verl's start, which counts as ril.
        begun = (run.folder / "discriminator.jsonl").exists()
        cost.book("discriminator" if begun and not pretrained.exists() else "ril", seconds)

    verl = session or TrainerProcess(run.folder / "logs" / "trainer.log")
    with (
        running(recipe.method, progress),
        nullcontext(recipe.judge.url)
        if recipe.judge.url
        else serve_judge(recipe.judge.model) as judge_url,
    ):
        job = _write_job(run, inputs.student, step, judge_url, trackers)
        device = recipe.hardware.device
        timer = StepTimer(verl.cpu_seconds, Yardstick()) if device == "cpu" else None
        try:
            with metered(book, verl.cpu_seconds):
                verl.train(job, device, timer.measuring(progress.line) if timer else progress.line)
        except UserError as error:
            reason = stop_reason(run)
            if reason is None:
                raise
            if ";" not in reason:  # it has no remedy yet
                reason += (
                    "; rollouts/ has the step's responses and --resume starts from the weights "
                    "saved before it; if it occurs again, lower the learning rates in another run"
                )
            raise UserError(reason) from error
        finally:
            cost.count_tokens()
            shutil.rmtree(run.folder / "data" / DATASETS_CACHE, ignore_errors=True)
        if timer:
            cost.set_step_time(timer.metrics)


def _write_job(
    run: Run, student: Checkpoint, step: int, judge_url: str, trackers: Sequence[str]
) -> Path:
    """Write what the trainer's process reads: ``data/agent_loop.yaml`` and ``data/job.json``."""
    import yaml

    judge, folder = run.recipe.judge, run.folder.resolve()
    model = judge.model if judge.url and judge.model != "rule" else ""
    cache = folder / "judge.jsonl" if judge.url else None
    part = agent_loop_part(run.recipe, folder, judge_url, model, cache, full_length=run.full_length)
    loop = yaml.safe_dump(part)
    (folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
    job = {
        "run_dir": str(folder),
        "model": str(student.path),
        "resume_from": str(folder / "steps" / f"global_step_{step}") if step else "",
        "trackers": list(trackers),
    }
    file = run.folder / "data" / "job.json"
    file.write_text(json.dumps(job, indent=2), encoding="utf-8")
    return file
