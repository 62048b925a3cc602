"""A training run, stage by stage: collect → sft → discriminator → ril → export.

Each stage does only what was not done before, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from rilbench import __version__
from rilbench.errors import UserError
from rilbench.logs import log_file
from rilbench.train.nan_guard import STOPPED
from rilbench.train.pipeline.collect_stage import collect_all, student_collection
from rilbench.train.pipeline.cost import RunCost
from rilbench.train.pipeline.export import export
from rilbench.train.pipeline.preflight import Inputs, check_judge, probe_judge, read_inputs
from rilbench.train.pipeline.prepare_data import note_on_recipe
from rilbench.train.pipeline.rl_stage import train_policy
from rilbench.train.pipeline.run_folder import Run, last_step, open_run
from rilbench.train.pipeline.sft import fine_tune
from rilbench.train.pipeline.stage import Progress, note
from rilbench.train.pipeline.trainer_process import Trainer
from rilbench.train.verl.ray_devices import check_devices

__all__ = ["collect", "open_run", "train"]

log = logging.getLogger(__name__)


def train(
    run: Run,
    progress: Progress,
    trackers: Sequence[str] = (),
    session: Trainer | None = None,
    inputs: Inputs | None = None,
) -> Path:
    """Run every stage that is not done yet, and return the exported checkpoint.

    Args:
        run: as `open_run` returns it.
        progress: shows it to the user.
        trackers: see `preflight.TRACKERS`.
        session: where verl is already running; None: start a process for this run alone.
        inputs: what `preflight` returned, for a run that it has just checked.

    Raises:
        UserError: a model, the data, a server or the training failed; what was done is kept.
    """
    recipe = run.recipe
    with _working_on(run):
        if run.finished:
            return run.checkpoint
        if inputs is None:
            inputs = read_inputs(run)
            if last_step(run) < recipe.schedule.steps:
                check_devices(recipe)
                check_judge(recipe)
                probe_judge(recipe)
        (run.folder / STOPPED).unlink(missing_ok=True)
        cost = RunCost(run.folder)
        start = inputs.student
        if text := note_on_recipe(recipe):
            note(text, progress)

        if text := inputs.store_pictures(run):
            note(text, progress)
        collect_all(run, inputs.collections, inputs.questions, progress)
        if recipe.sft.steps:
            student = fine_tune(run, inputs, cost, progress)
            # The discriminator is pretrained on responses of the student that it will meet.
            after_sft = student_collection(run, student)
            collect_all(run, after_sft, inputs.questions, progress)
            collections = [*inputs.collections, *after_sft]
            inputs = replace(inputs, student=student, collections=collections)
        cost.set_collected((each.folder, each.plan.model) for each in inputs.collections)
        if recipe.method_spec.is_rl:
            train_policy(run, inputs, cost, progress, trackers, session)
        return export(run, start, progress)


def collect(run: Run, progress: Progress, inputs: Inputs | None = None) -> None:
    """Run the first stage alone, on a machine that reaches the teachers, while it does.

    A later `train` of the run finds what was collected. The responses of a student after SFT are
    collected then.

    Raises:
        UserError: a model or the data failed; what was done is kept.
    """
    with _working_on(run):
        inputs = inputs or read_inputs(run)
        if text := inputs.store_pictures(run):
            note(text, progress)
        collect_all(run, inputs.collections, inputs.questions, progress)


@contextmanager
def _working_on(run: Run) -> Iterator[None]:
    """Keep other processes away from a run, and log to its folder, during the body."""
    try:
        lock = FileLock(run.folder / ".lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another process is training {run.folder}; wait for it") from error
    with lock, log_file(run.folder / "logs" / "rilbench.log"):
        log.info("rilbench %s: %s (recipe %s)", __version__, run.folder, run.recipe.fingerprint)
        try:
            yield
        except BaseException as error:
            log.info("stopped: %s: %s", type(error).__name__, error)
            raise
        log.info("done")
