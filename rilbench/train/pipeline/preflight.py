"""Preflight: everything that would stop a run, checked before its folder is made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rilbench.api_keys import judge_key
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.data.question import Question, StoredQuestion
from rilbench.data.stored_questions import QuestionScan, store_pictures
from rilbench.errors import UserError
from rilbench.judge.client import JudgeClient, Verdict
from rilbench.judge.code_judges import find_judge
from rilbench.paths import locate
from rilbench.train.pipeline.collect_stage import (
    ModelCollection,
    find_servers,
    student_collection,
    teacher_collections,
)
from rilbench.train.pipeline.prompt_lengths import PromptLengths
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.rewards import load_rewards
from rilbench.train.verl.config import overrides, picture_file
from rilbench.train.verl.ray_devices import check_devices

log = logging.getLogger(__name__)

IMAGE_READERS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")
"""Model types that receive their images: verl 0.9.1 has their processor, or
`rilbench.train.verl.model_families` adds it. With others verl goes on without images."""

TRACKERS = ("tensorboard", "wandb")
"""Trackers of verl that ``--log`` offers; each needs the package of its name."""


@dataclass(frozen=True)
class Inputs:
    """A run's models and the texts of its data, read once; the pictures stay on the disk."""

    student: Checkpoint
    """The student that the recipe names."""
    collections: list[ModelCollection]
    """Teachers' responses, and the student's unless SFT makes it another model first."""
    questions: list[StoredQuestion]
    dev: list[StoredQuestion]
    sft_questions: list[StoredQuestion]
    """Contents of ``sft.data``."""
    scans: tuple[QuestionScan, ...]
    """Of the files that these three are from, as far as there are any."""

    def store_pictures(self, run: Run) -> str:
        """Write ``data/pictures.arrow``, unless it is there; return a note for the user or "".

        Raises:
            UserError: the data changed since it was read.
        """
        return store_pictures(picture_file(run.folder), self.scans)


def preflight(run: Run, *, collect_only: bool = False) -> Inputs:
    """Check everything that would stop a run, and return its inputs for the run to use.

    Args:
        run: its folder need not exist.
        collect_only: skip what only training needs, the GPUs and the judge.

    Raises:
        UserError: fewer GPUs than needed; a model or the data missing, broken or unfit; a prompt
            that is too long; a reward that cannot be loaded; a judge that gives no verdict;
            settings that verl cannot divide among devices.
    """
    recipe = run.recipe
    log.info("preflight of %s (recipe %s)", run.folder, recipe.fingerprint)
    load_rewards(recipe.reward.extra)
    if not collect_only:
        check_devices(recipe)
    lengths = PromptLengths(locate(recipe.student.model), recipe.data.max_prompt_tokens)
    inputs = read_inputs(run, lengths.add)
    lengths.check()
    find_servers(recipe, inputs.collections, inputs.questions)
    if not collect_only:
        check_judge(recipe)
        probe_judge(recipe)
        if recipe.method_spec.is_rl:
            overrides(recipe, Path("runs"), "model", resume_from=None)
    return inputs


def read_inputs(run: Run, visit: Callable[[Question], None] | None = None) -> Inputs:
    """Read the recipe's models and data.

    Args:
        run: its folder need not exist.
        visit: called with each question to train on and of dev, while its pictures are in memory.

    Raises:
        UserError: one is missing, broken or unfit; and whatever ``visit`` raises.
    """
    recipe = run.recipe
    student = inspect_checkpoint(locate(recipe.student.model))
    if student.model_type not in IMAGE_READERS:
        raise UserError(
            f"verl 0.9.1 passes no images to {student.model_type}; use a student of one of "
            f"{', '.join(IMAGE_READERS)}"
        )
    names = [recipe.data.train, recipe.data.dev, *filter(None, [recipe.sft.data])]
    scans: list[QuestionScan] = []
    for file in map(locate, names):
        first = scans[-1].end if scans else 0
        scans.append(QuestionScan(file, picture_file(run.folder), first))
        for question in scans[-1]:
            if visit and len(scans) < 3:  # SFT cuts what is too long
                visit(question)
    questions, dev, sft_questions = (*(scan.questions for scan in scans), [])[:3]
    if len(questions) < recipe.schedule.prompts_per_step:
        raise UserError(
            f"{len(questions)} questions are fewer than one step's "
            f"{recipe.schedule.prompts_per_step}; set schedule.prompts_per_step"
        )
    collections = teacher_collections(run)
    if not recipe.sft.steps:
        collections += student_collection(run, student)
    log.info("student %s (%s) in %s", student.fingerprint, student.model_type, student.path)
    log.info("%d questions in %s, %d of dev", len(questions), recipe.data.train, len(dev))
    return Inputs(student, collections, questions, dev, sft_questions, tuple(scans))


def check_trackers(trackers: Sequence[str]) -> None:
    """Check that trackers are known and installed.

    Raises:
        UserError: with the known ones, or the command that installs it.
    """
    for name in trackers:
        if name not in TRACKERS:
            raise UserError(f"--log {name} is not known; use one of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise UserError(f"--log {name} needs a package: uv pip install {name}")


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
    log.info("judge %s answers", verdict.judge)
