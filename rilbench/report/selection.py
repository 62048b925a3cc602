"""Resolve the names of the command line: training runs or models, with their evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, latest
from rilbench.table.question_diff import find_evaluation
from rilbench.table.types import UNTRAINED

ROLES = ("before", "base", "after", "teacher")
"""The roles of an evaluation, in the page's order: where a shown training began, an untrained
model that was asked for, a trained one, and a teacher."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One run or model, with the newest evaluations for each suite and kit.

    Attributes:
        name: its name on the page.
        run: from the ledger or its folder; None for a model that was not trained here.
        before: evaluations of the student before training.
        reported: evaluations of the model that was asked for, trained or not.
        teachers: evaluations of its teachers.
    """

    name: str
    run: Run | None
    before: tuple[Evaluation, ...]
    reported: tuple[Evaluation, ...]
    teachers: tuple[Evaluation, ...]

    @property
    def folder(self) -> Path | None:
        """The run's folder, if it still exists."""
        if self.run is None or not Path(self.run.path).is_dir():
            return None
        return Path(self.run.path)


def with_roles(subjects: Iterable[Subject]) -> list[tuple[int, str, Evaluation]]:
    """Return each evaluation of a report once, as (number of its subject, role, evaluation).

    A model that was asked for is "before" where another's training began with it.
    """
    subjects = list(subjects)
    starts = {e.id for subject in subjects for e in subject.before}
    found: dict[int | None, tuple[int, str, Evaluation]] = {}
    for number, subject in enumerate(subjects):
        sides = [("before", e) for e in subject.before]
        sides += [("base" if _is_untrained(e) else "after", e) for e in subject.reported]
        sides += [("teacher", e) for e in subject.teachers]
        for role, e in sides:
            role = "before" if role == "base" and e.id in starts else role
            found.setdefault(e.id, (number, role, e))
    return list(found.values())


def _is_untrained(evaluation: Evaluation) -> bool:
    return evaluation.method == UNTRAINED and evaluation.start_fingerprint is None


def find_subjects(
    ledger: Ledger, names: Sequence[str], teachers: Sequence[str] = ()
) -> list[Subject]:
    """Find the subjects of a report, each once.

    Args:
        ledger: the evaluations and runs.
        names: training runs (a name in the ledger, or a folder), numbers of evaluations, or models
            as `find_evaluation` knows them.
        teachers: models whose responses are shown too; without any, the recipe's teachers.

    Raises:
        UserError: a name matches nothing, or several runs or models.
    """
    every = ledger.evaluations()
    chosen = [find_evaluation(ledger, name) for name in teachers]
    subjects: list[Subject] = []
    for name in names:
        subject = _subject(ledger, name, every, chosen)
        if subject not in subjects:
            subjects.append(subject)
    return subjects


def _subject(
    ledger: Ledger, name: str, every: list[Evaluation], chosen: list[Evaluation]
) -> Subject:
    run = None if name.isdecimal() else _find_run(ledger, name)
    run = up_to_date(run) if run is not None else None
    if run is not None:
        reported = latest(e for e in every if _is_of(e, run))
    else:
        evaluation = _find_evaluation(ledger, name)
        run, reported = _run_of(ledger, evaluation), [evaluation]
        if not name.isdecimal():
            same = [e for e in every if e.fingerprint == evaluation.fingerprint]
            reported = [e for e in latest(same) if _labels(e) == _labels(evaluation)]
    starts = {e.start_fingerprint for e in reported if e.start_fingerprint}
    used = {(e.suite, e.kit) for e in reported}

    def comparable(others: Iterable[Evaluation]) -> list[Evaluation]:
        return [e for e in latest(others) if (e.suite, e.kit) in used]

    before = comparable(e for e in every if e.fingerprint in starts)
    teachers = comparable(chosen or (e for e in every if _is_teacher(e, run)))
    teachers = [e for e in teachers if e.fingerprint not in starts]
    shown = _labels(reported[0]) if reported else ()
    model = " ".join(part for part in shown if part != "none")
    return Subject(
        name=run.name if run is not None else model,
        run=run,
        before=tuple(before),
        reported=tuple(sorted(reported, key=lambda e: (e.suite, e.kit))),
        teachers=tuple(sorted(teachers, key=lambda e: e.student)),
    )


def _find_run(ledger: Ledger, name: str) -> Run | None:
    """Return the training run of a folder or name; None if there is none."""
    runs = ledger.runs()
    try:
        folder = Path(name).resolve()
        is_run = (folder / "recipe.yaml").is_file()
    except (OSError, ValueError, RuntimeError):  # no name of a file at all
        folder, is_run = Path(), False
    exact = [r for r in runs if r.path == name.rstrip("/") or (is_run and r.path == str(folder))]
    matching = exact or [run for run in runs if run.name == name]
    if len(matching) > 1:
        which = ", ".join(run.path for run in matching[:5])
        raise UserError(f"{ledger.path} has several runs called {name!r}: {which}; give a folder")
    if matching:
        return matching[0]
    return _read_run(folder) if is_run else None


def up_to_date(run: Run) -> Run:
    """Return a run in progress with the curves of its folder; the ledger has them at its end."""
    from rilbench.train.pipeline.ledger_summary import curves, read_steps

    metrics = Path(run.path) / "metrics.jsonl"
    if run.status != "running" or not metrics.is_file():
        return run
    try:
        steps = read_steps(metrics)
    except (OSError, ValueError):  # Damaged: what the ledger has is shown.
        return run
    return replace(run, curves=curves(steps), metrics={**run.metrics, "steps": len(steps)})


def _read_run(folder: Path) -> Run:
    """Read a run that is recorded in another ledger, from its folder."""
    # Imported here, because few reports need it; it imports neither verl nor torch.
    from rilbench.config import read_recipe
    from rilbench.train.pipeline.ledger_summary import summary
    from rilbench.train.pipeline.run_folder import Run as RunFolder

    run = RunFolder(folder, read_recipe(folder / "recipe.yaml"))
    return summary(run, "finished" if run.finished else "stopped")


def _find_evaluation(ledger: Ledger, name: str) -> Evaluation:
    try:
        return find_evaluation(ledger, name)
    except UserError as error:
        if "has no evaluation" not in str(error):
            raise
        known = ", ".join(run.name for run in ledger.runs()[-5:]) or "none yet"
        raise UserError(f"{error}; its runs are: {known}") from error


def _run_of(ledger: Ledger, evaluation: Evaluation) -> Run | None:
    """Return the training run of an evaluated model, from the ledger or the model's folder."""
    runs = [run for run in ledger.runs() if _is_of(evaluation, run)]
    # If several have this name and recipe, the one whose folder holds the model.
    inside = [run for run in runs if evaluation.path.startswith(f"{run.path}/")]
    if runs:
        return (inside or runs)[0]
    folder = Path(evaluation.path).parent
    if evaluation.run is None or not (folder / "recipe.yaml").is_file():
        return None
    try:
        run = _read_run(folder)
    except UserError:  # An unreadable recipe: the evaluation can still be shown.
        return None
    return run if _is_of(evaluation, run) else None


def _is_of(evaluation: Evaluation, run: Run) -> bool:
    """Whether the evaluated model was trained by the run, according to its labels."""
    if evaluation.run != run.name:
        return False
    return evaluation.recipe_fingerprint in (None, run.recipe_fingerprint)


def _is_teacher(evaluation: Evaluation, run: Run | None) -> bool:
    """Whether the evaluated model is one of the recipe's teachers.

    The last part of the model's name decides ("Qwen2.5-VL-72B-Instruct" of a folder, a hub name or
    an endpoint; "72b" of "nano:72b"), because the folder may have moved since the training.
    """
    if run is None or evaluation.method != UNTRAINED or evaluation.run is not None:
        return False
    teachers = read_yaml(run.recipe_yaml).get("teachers")
    if not isinstance(teachers, Mapping) or not isinstance(teachers.get("models"), Mapping):
        return False
    used = teachers.get("names") or []

    def last_name(model: str) -> str:
        return re.split(r"[/:]", model.rstrip("/"))[-1].casefold()

    names = {last_name(str(v)) for k, v in teachers["models"].items() if k in used and v}
    return bool(names & {last_name(evaluation.path), evaluation.student})


def read_yaml(text: str) -> dict[str, Any]:
    """Read a recipe as the ledger keeps it; empty if it cannot be read."""
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _labels(evaluation: Evaluation) -> tuple[str, ...]:
    return evaluation.student, evaluation.method, evaluation.teacher
