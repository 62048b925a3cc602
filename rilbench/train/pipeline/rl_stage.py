"""The stages ``discriminator`` and ``ril`` (or another method), in one process of verl."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.judge.server import rule_judge
from rilbench.train.pipeline.collect_stage import ModelCollection
from rilbench.train.pipeline.cost import CpuMeter, RunCost
from rilbench.train.pipeline.preflight import Inputs
from rilbench.train.pipeline.prepare_data import prepare_data
from rilbench.train.pipeline.run_folder import Run, forget_after, last_step, stop_reason
from rilbench.train.pipeline.session import Session
from rilbench.train.pipeline.stage import Progress, note, running, skipped
from rilbench.train.pipeline.step_time import StepTimer, Yardstick

log = logging.getLogger(__name__)


def train_policy(
    run: Run,
    student: Checkpoint,
    collections: list[ModelCollection],
    inputs: Inputs,
    *,
    session: Session | None,
    trackers: Sequence[str],
    cost: RunCost,
    progress: Progress,
) -> None:
    """Pretrain the discriminator and train the policy, from the last saved step.

    Args:
        run: the run.
        student: the model to start from, after SFT if there was any.
        collections: the teachers' responses, and those of ``student`` to pretrain on.
        inputs: the questions.
        session: where verl is already running; None: start a process for this run alone.
        trackers: trackers of verl to log to as well.
        cost: gets the tokens, CPU seconds and step time.
        progress: told of both stages and every step.

    Raises:
        UserError: too few questions, or the training stopped; what was saved is kept.
    """
    recipe, step = run.recipe, last_step(run)
    discriminator = run.folder / "discriminator" / "done"
    if recipe.method_spec.uses_discriminator and discriminator.exists():
        skipped("discriminator", progress)
    if step >= recipe.schedule.steps:
        cost.count_tokens()
        skipped(recipe.method, progress)
        return
    for text in prepare_data(run, student, collections, inputs.questions, inputs.dev):
        note(text, progress)
    forget_after(run.folder, step)
    if step:
        log.info("resuming from step %d of %d", step, recipe.schedule.steps)

    def book(seconds: float) -> None:
        # Starting verl counts as the loop's, so pretraining begins with its first record.
        begun = (run.folder / "discriminator.jsonl").exists()
        stage = "discriminator" if begun and not discriminator.exists() else "ril"
        cost.book(stage, seconds)

    output = run.folder / "logs" / "trainer.log"
    with (
        running(recipe.method, progress),
        nullcontext(session) if session else Session(output, keep=False) as verl,
    ):
        try:
            with CpuMeter(book, verl.cpu_seconds):
                step_time = _train(run, student, step, verl, trackers, progress)
            cost.set_step_time(step_time)
        finally:
            cost.count_tokens()


def _train(
    run: Run,
    student: Checkpoint,
    step: int,
    session: Session,
    trackers: Sequence[str],
    progress: Progress,
) -> dict[str, float]:
    """Give the trainer its job, wait for its end, and return `StepTimer.metrics`."""
    import yaml

    from rilbench.train.verl.config import agent_loop_part

    recipe, folder = run.recipe, run.folder.resolve()
    with nullcontext(recipe.judge.url) if recipe.judge.url else rule_judge() as judge_url:
        judge_model = "" if recipe.judge.model == "rule" else recipe.judge.model
        judge_log = folder / "judge.jsonl" if recipe.judge.url else None
        loop = yaml.safe_dump(agent_loop_part(recipe, judge_url, judge_model, judge_log))
        (folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
        job = {
            "run_dir": str(folder),
            "model": str(student.path),
            "resume_from": str(folder / "steps" / f"global_step_{step}") if step else "",
            "trackers": list(trackers),
        }
        job_file = run.folder / "data" / "job.json"
        job_file.write_text(json.dumps(job, indent=2), encoding="utf-8")
        device = recipe.hardware.device
        timer = StepTimer(session.cpu_seconds, Yardstick()) if device == "cpu" else None
        try:
            session.train(
                job_file, device, timer.measuring(progress.line) if timer else progress.line
            )
        except UserError as error:
            reason = stop_reason(run)
            if reason is None:
                raise
            if ";" in reason:  # it names the remedy
                raise UserError(reason) from error
            raise UserError(
                f"{reason}; rollouts/ has the step's responses and --resume starts from the "
                "weights saved before it; if it occurs again, lower the learning rates in another "
                "run"
            ) from error
    return timer.metrics if timer else {}
