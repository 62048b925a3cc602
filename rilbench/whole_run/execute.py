"""The stages of a run file, one after the other, each only as far as it is not done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rilbench.config.run_file import RunFile
from rilbench.evaluate.data import check_converted
from rilbench.evaluate.events import Report
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate_many
from rilbench.ledger import Evaluation
from rilbench.logs import log_file
from rilbench.paths import locate
from rilbench.train.pipeline import stages
from rilbench.train.pipeline.ledger_summary import recorded
from rilbench.train.pipeline.preflight import ask_judge, preflight
from rilbench.train.pipeline.progress_record import planned_stages
from rilbench.train.pipeline.run_folder import Run, open_run
from rilbench.train.pipeline.stage import Progress, running, skipped
from rilbench.whole_run.evaluation_judge import check_judge, judge_for, starts_judge
from rilbench.whole_run.plan import chosen_suite


def train_and_evaluate(
    file: RunFile,
    folder: Path,
    options: EvalOptions,
    progress: Progress,
    on_evaluation: Report,
    trackers: Sequence[str] = (),
    *,
    strict: bool = False,
) -> list[Evaluation]:
    """Do what is not done yet of a run file, and return both evaluations.

    Args:
        file: what to do.
        folder: of the run.
        options: of the evaluation, with the ledger.
        progress: shows the stages.
        on_evaluation: shows the evaluation.
        trackers: see `tracker_check.TRACKERS`.
        strict: see `preflight`.

    Raises:
        UserError: what stopped it; what was done is kept.
    """
    recipe, inputs = file.recipe, None
    assert options.db is not None
    if folder.exists():
        skipped("data", progress)
    else:
        with running("data", progress):
            _check_judge(file, options)
            check_converted(chosen_suite(options), options.data)
            inputs = preflight(Run(folder, recipe), strict=strict)
    run = open_run(folder, recipe, resume=folder.exists())
    if run.finished:
        for name in planned_stages(recipe):
            skipped(name, progress)
    else:
        with recorded(run, options.db):
            stages.train(run, progress, trackers, inputs=inputs, strict=strict)
    models = [locate(recipe.student.model), run.checkpoint]
    with (
        running("eval", progress),
        log_file(options.work / "rilbench.log"),
        judge_for(run, options, progress) as judged,
    ):
        return evaluate_many(models, judged, on_evaluation)


def _check_judge(file: RunFile, options: EvalOptions) -> None:
    """Refuse a judge of the evaluation that would stop it days later."""
    if starts_judge(options):
        check_judge(file.recipe)
    elif options.judge.url:
        setting = "judge.url" if file.evaluation.get("judge") is None else "eval.judge"
        ask_judge(options.judge.url, options.judge.model, setting)
