"""Preflight: everything that would stop a run, checked before its folder is made."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from rilbench.api_keys import judge_keys
from rilbench.checkpoint import Checkpoint, inspect_checkpoint
from rilbench.config import Recipe
from rilbench.config.layouts import check_layout
from rilbench.data.manifest import manifest_beside
from rilbench.data.question import StoredQuestion
from rilbench.data.stored_questions import QuestionScan, store_pictures
from rilbench.errors import UserError
from rilbench.judge.client import JudgeClient, Verdict
from rilbench.judge.code_judges import find_judge
from rilbench.paths import locate, locate_files
from rilbench.plan.counted import EXPERTS
from rilbench.plan.servers import starts_judge
from rilbench.train.pipeline.collect_stage import (
    student_collection,
    teacher_collections,
)
from rilbench.train.pipeline.disk import check_disk
from rilbench.train.pipeline.distillation_check import check_teachers_tokens
from rilbench.train.pipeline.judge_check import model_to_ask
from rilbench.train.pipeline.question_check import (
    QuestionCheck,
    check_questions,
    digest,
    read_checks,
    refuse_strictly,
)
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.started_servers import check_started_judge
from rilbench.train.pipeline.teacher_servers import (
    ModelCollection,
    find_servers,
    first_questions,
)
from rilbench.train.rewards import load_rewards
from rilbench.train.verl.config import overrides, picture_file
from rilbench.train.verl.ray_devices import check_devices

log = logging.getLogger(__name__)


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
    checks: dict[str, QuestionCheck]
    """What `rilbench.train.pipeline.question_check` found, by setting (``data.train``); what it
    refused is not in the lists above."""
    scans: list[QuestionScan]
    """Of the files that these questions are from, with all that each has; ``data.train`` first."""

    def store_pictures(self, run: Run) -> None:
        """Write ``data/pictures.arrow``, unless it is there.

        Raises:
            UserError: the data changed since it was read.
        """
        store_pictures(picture_file(run.folder), self.scans)


def preflight(run: Run, *, collect_only: bool = False, strict: bool = False) -> Inputs:
    """Check everything that would stop a run, and return its inputs for the run to use.

    Args:
        run: its folder need not exist.
        collect_only: skip what only training needs, the GPUs and the judge.
        strict: refuse questions that cannot be trained on, instead of leaving them out.

    Raises:
        UserError: fewer GPUs or less room on the disk than needed; a model or the data missing,
            broken or unfit; a reward that cannot be loaded; a judge that gives no verdict; settings
            that verl cannot divide among devices.
    """
    recipe = run.recipe
    log.info("preflight of %s (recipe %s)", run.folder, recipe.fingerprint)
    load_rewards(recipe.reward.extra)
    if not collect_only:
        check_devices(recipe)
    inputs = read_inputs(run, strict=strict)
    probes = first_questions(recipe, inputs.questions)
    find_servers(recipe, inputs.collections, inputs.questions, probes)
    if not collect_only:
        if recipe.method_spec.uses_teacher_log_probs:
            check_teachers_tokens(recipe, inputs.student.path, probes)
        check_disk(run, len(inputs.questions))
        check_judge(recipe)
        probe_judge(recipe)
        if recipe.method_spec.is_rl:
            overrides(recipe, Path("runs"), "model", resume_from=None)
    return inputs


def read_inputs(run: Run, *, strict: bool = False) -> Inputs:
    """Read the recipe's models and data, without questions that cannot be trained on.

    Args:
        run: its folder need not exist.
        strict: refuse questions that cannot be trained on, instead of leaving them out.

    Raises:
        UserError: one is missing, broken or unfit; or with ``strict`` a question is.
    """
    recipe = run.recipe
    student = inspect_checkpoint(locate(recipe.student.model))
    check_layout(recipe, student.model_type)
    if student.model_type in EXPERTS and recipe.hardware.device == "cpu":
        raise UserError(
            f"a student with experts ({student.model_type}) cannot be sampled on a CPU: verl sends "
            "each expert's weights alone, as vLLM takes them; train it on GPUs"
        )
    needed = {
        "data.train": (recipe.data.train, "schedule.prompts_per_step"),
        "data.dev": (recipe.data.dev, ""),
    }
    if recipe.sft.data:
        needed["sft.data"] = (recipe.sft.data, "sft.batch_size")
    scans: dict[str, QuestionScan] = {}
    checks: dict[str, QuestionCheck] = {}
    pictures = 0
    for key, (name, _) in needed.items():
        scans[key] = QuestionScan(locate_files(name, key), picture_file(run.folder), pictures)
        checks[key] = _checked(run, student, key, scans[key])
        pictures = scans[key].end
        for path, questions in scans[key].by_file.items():
            if manifest := manifest_beside(path):
                manifest.check(questions)
    if strict:
        refuse_strictly(checks)
    lists: dict[str, list[StoredQuestion]] = {}
    for key, (_, batch) in needed.items():
        lists[key] = [q for q in scans[key].questions if q.id not in checks[key].refused]
        _check_number(recipe, checks[key], key, batch)
    questions, dev = lists["data.train"], lists["data.dev"]
    _check_routes(recipe, questions)
    collections = teacher_collections(run)
    if not recipe.sft.steps:
        collections += student_collection(run, student)
    log.info("student %s (%s) in %s", student.fingerprint, student.model_type, student.path)
    log.info("%d questions in %s, %d of dev", len(questions), recipe.data.train, len(dev))
    return Inputs(
        student,
        collections,
        questions,
        dev,
        lists.get("sft.data", []),
        checks,
        list(scans.values()),
    )


_NO_GOLD = (
    "answer: it is a response with <think>; the judge compares with a short answer (rilbench data "
    "import takes it out of <answer>, or from another column)"
)


def _checked(run: Run, student: Checkpoint, name: str, scan: QuestionScan) -> QuestionCheck:
    """Read a file and say what is wrong with its questions.

    They are checked while they are read, or by another reading if the run's last start found other
    questions, or not at all if it found the same.
    """
    most, before = run.recipe.data.max_prompt_tokens, read_checks(run.folder).get(name)
    refused = {}
    if before is None:
        refused = check_questions(student.path, scan, most)
    else:
        deque(scan, maxlen=0)
    key = digest(scan.questions, student.fingerprint, most)
    if before is not None:
        if before.digest == key:
            return before
        again = QuestionScan(scan.paths, scan.pictures, 0)
        refused = check_questions(student.path, again, most)
    if name != "sft.data":
        refused |= {q.id: _NO_GOLD for q in scan.questions if "<think>" in q.answer}
    number = len(scan.questions)
    log.info("%s: %d questions, %d refused (%s)", name, number, len(refused), refused)
    return QuestionCheck(key, number, refused)


def _check_number(recipe: Recipe, check: QuestionCheck, name: str, batch: str) -> None:
    """Refuse fewer questions than one step takes by the setting ``batch``; "": at least one."""
    left, taken = check.total - len(check.refused), attrgetter(batch)(recipe) if batch else 1
    if left >= taken:
        return
    why = check.summary(name) or f"{name} has {left} questions"
    remedy = f"set {batch}={left} or less" if left else "fix them"
    raise UserError(f"{why}; one step takes {taken}, and {left} are left: {remedy}")


def _check_routes(recipe: Recipe, questions: Sequence[StoredQuestion]) -> None:
    """Refuse questions of a source that no teacher answers, and a teacher without questions."""
    lost = Counter(q.source for q in questions if not recipe.teachers_of(q.source))
    if recipe.teachers.mix == "routed" and lost:
        sources = ", ".join(f"{source!r} ({count})" for source, count in lost.most_common(5))
        raise UserError(
            f"teachers.routes names no teacher for questions of the source {sources}; set "
            "teachers.routes.SOURCE=TEACHER, or teachers.routes.*=TEACHER for all other sources"
        )
    known = {q.source for q in questions}
    asked = {name for source in known for name in recipe.teachers_of(source)}
    idle = [name for name in recipe.teachers.names if name not in asked]
    if recipe.teachers.mix == "routed" and idle:
        raise UserError(
            f"teachers.routes gives no question to {' and '.join(idle)}; the sources are "
            f"{', '.join(sorted(map(repr, known)))}: correct teachers.routes, or leave the "
            "teacher out of teachers.names"
        )


def check_judge(recipe: Recipe) -> None:
    """Refuse a judge without an address that can neither be started nor decide by code.

    Raises:
        UserError: with the setting that helps, or why its function cannot judge.
    """
    name = recipe.judge.model
    if recipe.judge.url:
        return
    if starts_judge(recipe):
        check_started_judge(recipe)
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
    name, judge = model_to_ask(recipe), recipe.judge
    verdicts = {
        url: _first_verdict(url, name, timeout=judge.timeout, fields=judge.fields)
        for url in judge.url
    }
    silent = [url for url, verdict in verdicts.items() if verdict.value is None]
    for url in silent:
        why = _silent(verdicts[url], url)
        if len(silent) == len(verdicts):
            raise UserError(
                f"{why}; start it, set judge.url to the address where it answers, or judge.fields "
                "to the fields that it takes (docs/teachers.md)"
            )
        log.warning("%s; the other servers of the judge go on", why)
    log.info("judge %s answers", judge.model)


def ask_judge(url: str | Sequence[str], model: str, setting: str) -> None:
    """Ask a judge for one verdict; an empty ``model`` is the only one that it serves.

    Raises:
        UserError: it gives none; ``setting`` names where its address was given.
    """
    verdict = _first_verdict(url, model)
    if verdict.value is None:
        raise UserError(
            f"{_silent(verdict, url)}; start it, or set {setting} to the address where it answers"
        )
    log.info("judge %s answers", verdict.judge)


def _first_verdict(url: str | Sequence[str], model: str, **options: Any) -> Verdict:
    async def ask() -> Verdict:
        async with JudgeClient(url, model or None, judge_keys(url), retries=2, **options) as judge:
            return await judge.verdict("What is 1 + 1?", "2", "1 + 1 is 2.")

    return asyncio.run(ask())


def _silent(verdict: Verdict, url: str | Sequence[str]) -> str:
    where = url if isinstance(url, str) else ", ".join(url)
    said = " ".join(verdict.text.split())[:200]
    return f"the judge {verdict.judge} at {where} gives no verdict ({said})"
