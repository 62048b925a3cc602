"""What would stop a run, found before its folder is made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.api_keys import judge_key
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.data.question_files import Question, read_questions
from rilbench.errors import UserError
from rilbench.judge.client import JudgeClient, Verdict
from rilbench.judge.code_judges import find_judge
from rilbench.paths import locate
from rilbench.train.pipeline.collect_stage import (
    Wanted,
    check_collections,
    student_wanted,
    teachers_wanted,
)
from rilbench.train.pipeline.prompt_lengths import check_lengths
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.verl.ray_devices import check_devices

IMAGE_READERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")
"""Model types whose images reach the model: verl 0.9.1 has their processor, or
`rilbench.train.verl.model_families` supplies it. For others verl goes on without images."""

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Trackers of verl that ``--log`` offers, and the package that each needs."""


def check_trackers(trackers: Sequence[str]) -> None:
    """Refuse a tracker that is unknown or not installed, before anything runs.

    Raises:
        UserError: with the known ones, or the command that installs it.
    """
    from importlib.util import find_spec

    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"--log {name} is not known; use one of {', '.join(TRACKERS)}")
        if find_spec(TRACKERS[name]) is None:
            raise UserError(f"--log {name} needs a package: uv pip install {TRACKERS[name]}")


def check_recipe(recipe: Recipe) -> None:
    """Find what would stop a run, before its folder is made.

    Raises:
        UserError: fewer GPUs than are needed; a model or the data missing, broken or unfit; a judge
            without an address; settings that verl cannot divide among devices.
    """
    from rilbench.train.verl.config import overrides

    check_devices(recipe)
    check_inputs(recipe)
    check_judge(recipe)
    probe_judge(recipe)
    if recipe.method_spec.is_rl:
        overrides(recipe, Path("runs"), "model", resume_from=None)


def check_inputs(recipe: Recipe) -> None:
    """The part of `check_recipe` on which collecting depends: it needs no GPU and no judge.

    Raises:
        UserError: a model or the data missing, broken or unfit, or a prompt that is too long.
    """
    found = read_inputs(Run(Path("runs"), recipe))
    check_lengths(found.student.path, [*found.questions, *found.dev], recipe.data.max_prompt_tokens)


@dataclass(frozen=True)
class Inputs:
    """What a run starts from."""

    student: Checkpoint
    wanted: list[Wanted]
    """Teachers' responses, and the student's where it is the one that the recipe names."""
    questions: list[Question]
    dev: list[Question]


def read_inputs(run: Run) -> Inputs:
    """The recipe's models and data, checked.

    Raises:
        UserError: one is missing, broken or unfit.
    """
    recipe = run.recipe
    student = inspect_checkpoint(locate(recipe.student.model))
    if student.model_type not in IMAGE_READERS:
        raise UserError(
            f"verl 0.9.1 passes no images to {student.model_type}; take a student of one of "
            f"{', '.join(IMAGE_READERS)}"
        )
    questions = read_questions(locate(recipe.data.train))
    dev = read_questions(locate(recipe.data.dev))
    if len(questions) < recipe.schedule.prompts_per_step:
        raise UserError(
            f"{len(questions)} questions are fewer than one step's "
            f"{recipe.schedule.prompts_per_step}; set schedule.prompts_per_step"
        )
    if recipe.sft.data:
        read_questions(locate(recipe.sft.data))
    wanted = teachers_wanted(run)
    if not recipe.sft.steps:
        wanted += student_wanted(run, student)
    check_collections(recipe, wanted, questions)
    return Inputs(student, wanted, questions, dev)


def check_judge(recipe: Recipe) -> None:
    """Refuse a judge without an address that does not decide by code or is needed on other nodes.

    Raises:
        UserError: with the setting that gives the address, or why a plug-in cannot judge.
    """
    name = recipe.judge.model
    if recipe.judge.url:
        return
    find_judge(name)
    if recipe.hardware.nodes > 1:
        raise UserError(
            f"judge.model={name} listens on one node only; start it for all (python -m "
            f"rilbench.judge.server --judge {name} --host 0.0.0.0 --port 8001) and set judge.url"
        )


def probe_judge(recipe: Recipe) -> None:
    """Ask a judge at an address for one verdict, before anything is spent.

    Raises:
        UserError: it gives none.
    """
    if not (recipe.method_spec.is_rl and recipe.judge.url):
        return
    name = None if recipe.judge.model == "rule" else recipe.judge.model

    async def ask() -> Verdict:
        async with JudgeClient(recipe.judge.url, name, judge_key(), retries=2) as judge:
            return await judge.verdict("What is 1 + 1?", "2", "1 + 1 is 2.")

    verdict = asyncio.run(ask())
    if verdict.value is None:
        said = " ".join(verdict.text.split())[:200]
        raise UserError(
            f"the judge {verdict.judge} at {recipe.judge.url} gives no verdict ({said}); start it, "
            "or set judge.url and judge.model to one that answers"
        )
