"""What a name on the command line stands for: a training run or a model, with its evaluations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, latest
from rilbench.table.question_diff import find_evaluation
from rilbench.table.types import UNTRAINED

ROLES = ("before", "after", "teacher")
"""What an evaluation is to a run; in the order in which they stand side by side."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One name of the command line; evaluations by suite and kit, the newest of each.

    Attributes:
        name: how the page calls it.
        run: as the ledger or its folder says; None for a model that was not trained here.
        before: evaluations of the student that training began from.
        after: of what is reported.
        teachers: of its teachers.
    """

    name: str
    run: Run | None
    before: tuple[Evaluation, ...]
    after: tuple[Evaluation, ...]
    teachers: tuple[Evaluation, ...]

    @property
    def folder(self) -> Path | None:
        """The run's folder where it is still there."""
        if self.run is None or not Path(self.run.path).is_dir():
            return None
        return Path(self.run.path)

    @property
    def evaluations(self) -> list[tuple[str, Evaluation]]:
        """All evaluations with their roles, in the order of `ROLES`."""
        sides = (self.before, self.after, self.teachers)
        return [(role, each) for role, side in zip(ROLES, sides, strict=True) for each in side]


def find_subjects(
    ledger: Ledger, names: Sequence[str], teachers: Sequence[str] = ()
) -> list[Subject]:
    """Find what is to be reported.

    Args:
        names: training runs (a name in the ledger, or a folder), numbers of evaluations, or models
            as `find_evaluation` knows them.
        teachers: models whose answers stand beside; without any, those that the recipe names.

    Raises:
        UserError: a name stands for nothing, or for several runs or models.
    """
    every = ledger.evaluations()
    given = [find_evaluation(ledger, name) for name in teachers]
    found = [_subject(ledger, name, every, given) for name in names]
    return [each for i, each in enumerate(found) if each not in found[:i]]


def _subject(
    ledger: Ledger, name: str, every: list[Evaluation], given: list[Evaluation]
) -> Subject:
    run = None if name.isdecimal() else _find_run(ledger, name)
    if run is not None:
        after = latest(each for each in every if _is_of(each, run))
    else:
        evaluation = _find_evaluation(ledger, name)
        run, after = _run_of(ledger, evaluation), [evaluation]
        if not name.isdecimal():
            same = [each for each in every if each.fingerprint == evaluation.fingerprint]
            after = [each for each in latest(same) if _labels(each) == _labels(evaluation)]
    starts = {each.start_fingerprint for each in after if each.start_fingerprint}
    before = _beside(after, (each for each in every if each.fingerprint in starts))
    teachers = _beside(after, given or (each for each in every if _teaches(each, run)))
    teachers = [each for each in teachers if each.fingerprint not in starts]
    return Subject(
        name=run.name if run is not None else _model(after[0]),
        run=run,
        before=tuple(before),
        after=tuple(sorted(after, key=lambda each: (each.suite, each.kit))),
        teachers=tuple(sorted(teachers, key=lambda each: each.student)),
    )


def _find_run(ledger: Ledger, name: str) -> Run | None:
    """The training run of a folder or name; None where there is none."""
    runs = ledger.runs()
    folder = _folder(name)
    exact = [each for each in runs if each.path in (name.rstrip("/"), str(folder))]
    matching = exact or [each for each in runs if each.name == name]
    if len(matching) > 1:
        which = ", ".join(each.path for each in matching[:5])
        raise UserError(f"{ledger.path} has several runs called {name!r}: {which}; give a folder")
    if matching:
        return matching[0]
    return _read_run(folder) if folder is not None else None


def _folder(name: str) -> Path | None:
    """The folder of a run, whole; None if it is not one, or no name of a file at all."""
    try:
        folder = Path(name).resolve()
        return folder if (folder / "recipe.yaml").is_file() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _read_run(folder: Path) -> Run:
    """A run that was recorded in another ledger, or by an older rilbench."""
    # Only here, and light: it reads a folder's files and imports neither verl nor torch.
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
        known = ", ".join(each.name for each in ledger.runs()[-5:]) or "none yet"
        raise UserError(f"{error}; its runs are: {known}") from error


def _run_of(ledger: Ledger, evaluation: Evaluation) -> Run | None:
    """The training run that an evaluated model comes from, where the ledger has it."""
    found = [each for each in ledger.runs() if _is_of(evaluation, each)]
    # Of runs of one name and recipe, the one whose folder holds the model.
    inside = [each for each in found if evaluation.path.startswith(f"{each.path}/")]
    if found:
        return (inside or found)[0]
    folder = Path(evaluation.path).parent
    if evaluation.run is None or not (folder / "recipe.yaml").is_file():
        return None
    try:
        run = _read_run(folder)
    except UserError:  # A recipe of another version: the evaluation can still be shown.
        return None
    return run if _is_of(evaluation, run) else None


def _is_of(evaluation: Evaluation, run: Run) -> bool:
    """Whether the evaluated model was trained by the run, as far as its labels say."""
    if evaluation.run != run.name:
        return False
    return evaluation.recipe_fingerprint in (None, run.recipe_fingerprint)


def _beside(after: Iterable[Evaluation], others: Iterable[Evaluation]) -> list[Evaluation]:
    """Of other models' evaluations the newest that share suite and kit with one of ``after``."""
    wanted = {(each.suite, each.kit) for each in after}
    found = latest(others)
    return [each for each in found if (each.suite, each.kit) in wanted]


def _teaches(evaluation: Evaluation, run: Run | None) -> bool:
    """Whether the evaluated model is one of the recipe's teachers.

    The model's last name decides ("Qwen2.5-VL-72B-Instruct" of a folder, a hub's name or an
    endpoint; "72b" of "nano:72b"): the folder may be another one than when it was trained.
    """
    if run is None or evaluation.method != UNTRAINED or evaluation.run is not None:
        return False
    names = {_last_name(model) for model in teacher_models(run).values()}
    return bool(names & {_last_name(evaluation.path), evaluation.student})


def _last_name(model: str) -> str:
    return re.split(r"[/:]", model.rstrip("/"))[-1].casefold()


def teacher_models(run: Run) -> dict[str, str]:
    """{teacher: model} of a run's recipe."""
    teachers = read_yaml(run.recipe_yaml).get("teachers")
    if not isinstance(teachers, Mapping) or not isinstance(teachers.get("models"), Mapping):
        return {}
    named = teachers.get("names") or []
    return {str(k): str(v) for k, v in teachers["models"].items() if k in named and v}


def read_yaml(text: str) -> dict[str, Any]:
    """A recipe as the ledger keeps it; nothing where it cannot be read."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _labels(each: Evaluation) -> tuple[str, ...]:
    return each.student, each.method, each.teacher


def _model(each: Evaluation) -> str:
    return " ".join(part for part in _labels(each) if part != "none")
