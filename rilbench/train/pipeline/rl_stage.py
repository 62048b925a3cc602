"""The stages ``discriminator`` and ``ril`` (or another method), in one process of verl."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from rilbench.checkpoint import Checkpoint
from rilbench.config.layouts import note_on_layout, suited
from rilbench.errors import UserError
from rilbench.train.pipeline.cost import RunCost, metered
from rilbench.train.pipeline.judge_check import check_on_sample, model_to_ask, verdict_file
from rilbench.train.pipeline.preflight import Inputs
from rilbench.train.pipeline.prepare_data import prepare_data
from rilbench.train.pipeline.run_folder import (
    RESHARDED,
    Run,
    forget_after,
    last_step,
    stop_reason,
)
from rilbench.train.pipeline.stage import Progress, note, running, skipped
from rilbench.train.pipeline.started_servers import judge_addresses, training_gpus
from rilbench.train.pipeline.step_time import StepTimer, Yardstick
from rilbench.train.pipeline.trainer_process import TrainerProcess
from rilbench.train.step_checkpoint import ranks_of
from rilbench.train.verl.config import DATASETS_CACHE, agent_loop_part

log = logging.getLogger(__name__)


def train_policy(
    run: Run,
    inputs: Inputs,
    cost: RunCost,
    progress: Progress,
    trackers: Sequence[str] = (),
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
    if text := note_on_layout(recipe, inputs.student.path):
        note(text, progress)
    forget_after(run.folder, step)
    if step:
        log.info("resuming from step %d of %d", step, recipe.schedule.steps)

    def book(seconds: float) -> None:
        # The time until the first record of the pretraining is verl's start, which counts as ril.
        begun = (run.folder / "discriminator.jsonl").exists()
        cost.book("discriminator" if begun and not pretrained.exists() else "ril", seconds)

    verl = TrainerProcess(run.folder / "logs" / "trainer.log", training_gpus(recipe))
    with running(recipe.method, progress), judge_addresses(run, progress) as judge_urls:
        for text in check_on_sample(recipe, run.folder, judge_urls, is_first=not step):
            note(text, progress)
        resume_from = _for_these_devices(run, step, progress)
        job = _write_job(run, inputs.student, resume_from, judge_urls, trackers)
        device = recipe.hardware.device
        timer = StepTimer(verl.cpu_seconds, Yardstick()) if device == "cpu" else None
        try:
            with metered(book, verl.cpu_seconds):
                verl.train(job, device, timer.measuring(progress.line) if timer else progress.line)
            shutil.rmtree(run.folder / "steps" / RESHARDED, ignore_errors=True)
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


def _for_these_devices(run: Run, step: int, progress: Progress) -> Path | None:
    """The folder of a saved step (0: none), cut again if another number of devices saved it.

    So is the pretrained discriminator, which is read where no step was saved yet.

    Raises:
        UserError: it cannot be cut.
    """
    if step:
        saved = run.folder / "steps" / f"global_step_{step}"
        model, out = saved / "actor", run.folder / "steps" / RESHARDED / saved.name
    else:
        saved = model = run.folder / "discriminator" / "state"
        out = saved.with_name(".state.part")
    before, ranks = ranks_of(model), run.recipe.hardware.ranks
    if before not in (0, ranks):
        note(f"{saved} was saved by {before} devices; it is cut for {ranks}", progress)
        command = [sys.executable, "-m", "rilbench.train.reshard"]
        command += [str(saved), str(ranks), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise UserError(
                f"{saved} cannot be cut for {ranks} devices ({why[:300]}); set hardware.nodes and "
                "hardware.devices as they were"
            )
        if step:
            return out
        shutil.rmtree(saved)
        out.rename(saved)
    return saved if step else None


def _tracker_id(run: Run) -> str:
    """The run's name for trackers, so that a resumed one is not another there."""
    file = run.folder / "tracker_id"
    if not file.exists():
        name = re.sub(r"[^A-Za-z0-9._-]", "-", run.folder.name)[:48]  # what all of them allow
        file.write_text(f"{name}-{uuid.uuid4().hex[:8]}", encoding="utf-8")
    return file.read_text(encoding="utf-8")


def _write_job(
    run: Run,
    student: Checkpoint,
    resume_from: Path | None,
    judge_urls: Sequence[str],
    trackers: Sequence[str],
) -> Path:
    """Write what the trainer's process reads: ``data/agent_loop.yaml`` and ``data/job.json``."""
    import yaml

    folder = run.folder.resolve()
    recipe = suited(run.recipe, student.path)
    model, cache = model_to_ask(recipe), verdict_file(recipe, folder)
    part = agent_loop_part(recipe, folder, judge_urls, model, cache, full_length=run.full_length)
    loop = yaml.safe_dump(part)
    (folder / "data" / "agent_loop.yaml").write_text(loop, encoding="utf-8")
    job = {
        "run_dir": str(folder),
        "model": str(student.path),
        "resume_from": str(resume_from.resolve()) if resume_from else "",
        "trackers": list(dict.fromkeys(trackers)),
        "step": last_step(run),
        "tracker_id": _tracker_id(run),
    }
    file = run.folder / "data" / "job.json"
    file.write_text(json.dumps(job, indent=2), encoding="utf-8")
    return file
