"""What an evaluation would ask, found out without asking anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rilbench.checkpoint import Checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.data import usable_files
from rilbench.evaluate.events import Progress, Report, silent
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.kits.environment import existing_environment
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.kits.lmmseval_tasks import with_task_descriptions
from rilbench.evaluate.model_run import ModelRun
from rilbench.evaluate.options import MODEL_PROMPTS, EvalOptions
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.responses import AnswerFile
from rilbench.evaluate.suite import LMMSEVAL
from rilbench.evaluate.suite_prompts import prompt_set


@dataclass(frozen=True)
class Preview:
    """What `evaluate_many` would ask."""

    prompts: PromptSet | None
    """Of the data sets whose files exist; None where none does, or without the kit."""
    absent: Mapping[str, int]
    """Of the others, the number of questions, as published."""
    stored: Mapping[str, tuple[AnswerFile, int]]
    """By model: its responses, and how many of the questions have none."""


def preview(
    plan: EvalOptions, models: Sequence[Checkpoint] = (), on_progress: Report = silent
) -> Preview:
    """Return what `evaluate_many` would ask, without asking model or judge, or downloading.

    Raises:
        UserError: the data or the kit is not usable.
    """
    if plan.prompt == MODEL_PROMPTS and not models:
        raise UserError(f"without a model there are no --prompt {MODEL_PROMPTS}; leave it out")
    suite = plan.chosen()
    data = plan.data
    python = plan.python or existing_environment(plan.kit)
    if python is not None:
        suite = with_task_descriptions(suite, python)
    files = {f.dataset.name: f for f in usable_files(suite, data).values()}
    present = [d for d in suite.datasets if python and files[d.name].state != "missing"]
    absent = {
        d.name: min(d.questions, plan.limit or d.questions)
        for d in suite.datasets
        if d not in present
    }
    if python is None or not present:
        return Preview(None, absent, {})
    if suite.kit == LMMSEVAL and not suite.published:
        data = write_hub(data, plan.work / "hub")
    prompts = prompt_set(plan, present, data, python, plan.style(models))
    if not prompts.ready:
        on_progress(Progress("prompts"))
        with Kit(plan.work.absolute() / "kit.log", name=plan.kit) as kit:
            process = kit.process(python)
            prompts.submit(process)
            prompts.finish(process)
    prompts.trials()  # It raises where the kit's total would be no score.
    on_progress(Progress("done"))
    stored = {}
    run = ModelRun(plan, suite, prompts, "", None, silent)
    for model in models if plan.endpoint is None else ():
        answers = AnswerFile(run.answer_files(model.content))
        stored[str(model.path)] = answers, len(answers.missing(prompts.questions))
    return Preview(prompts, absent, stored)
