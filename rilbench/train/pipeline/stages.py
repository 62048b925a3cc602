"""A training run, stage by stage: collect → sft → discriminator → ril → export.

Each stage does only what was not done before, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rilbench import __version__
from rilbench.logs import log_file
from rilbench.train.nan_guard import STOPPED
from rilbench.train.pipeline.collect_stage import collect_all, student_collection
from rilbench.train.pipeline.cost import RunCost
from rilbench.train.pipeline.disk import check_disk
from rilbench.train.pipeline.distillation_check import check_teachers_tokens
from rilbench.train.pipeline.export import export
from rilbench.train.pipeline.judge_check import notes_on_golds
from rilbench.train.pipeline.preflight import Inputs, check_judge, probe_judge, read_inputs
from rilbench.train.pipeline.prepare_data import notes_on_recipe
from rilbench.train.pipeline.progress_record import RecordedProgress, planned_stages
from rilbench.train.pipeline.question_check import (
    FILE,
    changed_questions,
    read_checks,
    write_checks,
)
from rilbench.train.pipeline.rl_stage import train_policy
from rilbench.train.pipeline.run_folder import Run, last_step, only_process, open_run
from rilbench.train.pipeline.sft import fine_tune
from rilbench.train.pipeline.stage import Progress, note
from rilbench.train.pipeline.teacher_servers import first_questions
from rilbench.train.verl.ray_devices import check_devices

__all__ = ["collect", "open_run", "train"]

log = logging.getLogger(__name__)


def train(
    run: Run,
    progress: Progress,
    trackers: Sequence[str] = (),
    inputs: Inputs | None = None,
    *,
    strict: bool = False,
) -> Path:
    """Run every stage that is not done yet, and return the exported checkpoint.

    Args:
        run: as `open_run` returns it.
        progress: shows it to the user.
        trackers: see `tracker_check.TRACKERS`.
        inputs: what `preflight` returned, for a run that it has just checked.
        strict: see `preflight.preflight`, of a run that it has not.

    Raises:
        UserError: a model, the data, a server or the training failed; what was done is kept.
    """
    recipe = run.recipe
    with _working_on(run):
        if run.finished:
            return run.checkpoint
        probed = inputs is not None
        progress = RecordedProgress(progress, run.folder, planned_stages(recipe))
        if inputs is None:
            inputs = read_inputs(run, strict=strict)
            if last_step(run) < recipe.schedule.steps:
                check_disk(run, len(inputs.questions))
                check_devices(recipe)
                if recipe.method_spec.uses_teacher_log_probs:
                    probes = first_questions(recipe, inputs.questions)
                    check_teachers_tokens(recipe, inputs.student.path, probes)
                check_judge(recipe)
                probe_judge(recipe)
        (run.folder / STOPPED).unlink(missing_ok=True)
        cost = RunCost(run.folder)
        start = inputs.student
        _note_on_questions(run, inputs, progress)
        for text in notes_on_recipe(recipe):
            note(text, progress)

        inputs.store_pictures(run)
        collect_all(run, inputs.collections, inputs.questions, progress, probed=probed)
        if recipe.sft.steps:
            student = fine_tune(run, inputs, cost, progress)
            # The discriminator is pretrained on responses of the student that it will meet.
            after_sft = student_collection(run, student)
            collect_all(run, after_sft, inputs.questions, progress)
            collections = [*inputs.collections, *after_sft]
            inputs = replace(inputs, student=student, collections=collections)
        cost.set_collected((each.folder, each.plan.name) for each in inputs.collections)
        if recipe.method_spec.is_rl:
            train_policy(run, inputs, cost, progress, trackers)
        return export(run, start, progress)


def collect(
    run: Run, progress: Progress, inputs: Inputs | None = None, *, strict: bool = False
) -> None:
    """Run the first stage alone, on a machine that reaches the teachers, while it does.

    A later `train` of the run finds what was collected. The responses of a student after SFT are
    collected then.

    Raises:
        UserError: a model or the data failed; what was done is kept.
    """
    with _working_on(run):
        probed = inputs is not None
        progress = RecordedProgress(progress, run.folder, ["collect"])
        inputs = inputs or read_inputs(run, strict=strict)
        _note_on_questions(run, inputs, progress)
        inputs.store_pictures(run)
        collect_all(run, inputs.collections, inputs.questions, progress, probed=probed)


def _note_on_questions(run: Run, inputs: Inputs, progress: Progress) -> None:
    """Tell which questions are left out, and whether they are others than before; keep both.

    And which reference answers the judge can hardly find in a response.
    """
    for text in changed_questions(read_checks(run.folder), inputs.checks):
        note(text, progress)
    for name, check in inputs.checks.items():
        if text := check.summary(name):
            note(f"{text}; all are in {run.folder / FILE}", progress)
    for text in notes_on_golds(run.recipe, inputs.questions):
        note(text, progress)
    write_checks(run.folder, inputs.checks)


@contextmanager
def _working_on(run: Run) -> Iterator[None]:
    """Keep other processes away from a run, and log to its folder, during the body."""
    with only_process(run.folder), log_file(run.folder / "logs" / "rilbench.log"):
        log.info("rilbench %s: %s (recipe %s)", __version__, run.folder, run.recipe.fingerprint)
        try:
            yield
        except BaseException as error:
            log.info("stopped: %s: %s", type(error).__name__, error)
            raise
        log.info("done")
