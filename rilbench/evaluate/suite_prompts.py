"""The prompts of a suite, from its data files."""

from collections.abc import Sequence
from pathlib import Path

from rilbench.evaluate.data import ensure_data
from rilbench.evaluate.events import Progress, Report
from rilbench.evaluate.kits.lmmseval_dataset import write_hub
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import PromptSet
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Dataset, Suite


def suite_prompts(
    plan: EvalOptions, suite: Suite, python: Path, style: str | None, on_progress: Report
) -> PromptSet:
    """Get the suite's data, and return its prompts, which may not be written yet.

    Raises:
        UserError: the data are not usable.
    """
    data = plan.data
    if suite.kit == VLMEVALKIT or not suite.published:
        ensure_data(
            suite.by(VLMEVALKIT),
            data,
            python,
            lambda line: on_progress(Progress("data", note=line)),
        )
    if suite.kit == LMMSEVAL and not suite.published:
        data = write_hub(data, plan.work / "hub")
    return prompt_set(plan, suite.datasets, data, python, style)


def prompt_set(
    plan: EvalOptions, datasets: Sequence[Dataset], data: Path, python: Path, style: str | None
) -> PromptSet:
    """Return the prompts of data sets whose files exist."""
    return PromptSet(
        datasets,
        data,
        cache=plan.work / "prompts",
        environment=python.parent.parent.name,
        limit=plan.limit,
        kit=plan.kit,
        style=style,
    )
