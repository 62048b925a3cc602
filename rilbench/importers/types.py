"""What a kit's result folder says of a model, in the same form for both kits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rilbench.evaluate.kits.scores import Outcome, summed_up
from rilbench.evaluate.suite import Dataset

UNKNOWN = "unknown"
"""In the place of a version or a judge that the files do not name."""


class UnreadableError(Exception):
    """A file is not what its name says; the message says why, in a few words."""


@dataclass(frozen=True)
class Question:
    """One scored question.

    Attributes:
        question_id: the kit's own name for it within its dataset.
        score: 0 to 1; None without a verdict.
        counted: what the kit counts for it, also where nobody decided.
        response: what the model replied; of a circular question all replies.
        gold: the ground truth.
        judged: a judge took part.
        extracted: what the kit read from the response, None where no file says.
        stem: what it asks, None where no file says.
        stratum: the group whose mean counts, where the score is a mean of means.
        prompt_hash: of what the model was sent, empty where no file says.
    """

    question_id: str
    score: float | None
    counted: float
    response: str
    gold: str | None
    judged: bool = False
    extracted: str | None = None
    stem: str | None = None
    stratum: str = ""
    prompt_hash: str = ""


@dataclass(frozen=True)
class DatasetResult:
    """A dataset's score, with its questions where the files have them.

    Attributes:
        dataset: of the suite.
        value: 0 to 100; None when no question has a verdict.
        questions: empty where there is a total only.
        count: how many questions were scored; 0 where no file says.
        judge: who decided, `UNKNOWN`, or None where no judge took part.
        kit_version: as the files say it.
        files: those that were read.
        asked: hash of the prompts and of how answers were drawn, `UNKNOWN` where no file says.
        notes: what a reader should know.
    """

    dataset: Dataset
    value: float | None
    questions: tuple[Question, ...]
    count: int
    judge: str | None
    kit_version: str
    files: tuple[Path, ...]
    asked: str = UNKNOWN
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> int:
        """Questions without a verdict."""
        return sum(each.score is None for each in self.questions)


@dataclass(frozen=True)
class ModelResult:
    """What one kit found of one model.

    Attributes:
        kit: as in `rilbench.evaluate.suite`.
        model: as the kit calls it.
        folder: the model's.
        created: when, ISO 8601 in UTC.
        datasets: by name.
        notes: what a reader should know.
    """

    kit: str
    model: str
    folder: Path
    created: str
    datasets: dict[str, DatasetResult]
    notes: tuple[str, ...] = ()

    @cached_property
    def hashes(self) -> dict[Path, str]:
        """SHA-256 of every file that was read."""
        files = {file for each in self.datasets.values() for file in each.files}
        return {file: sha256(file) for file in sorted(files)}


def fits(result: DatasetResult) -> bool:
    """Whether the questions come to the total, as the kit counts them."""
    mean, total = (
        _mean((q.question_id, q.counted, q.stratum) for q in result.questions),
        result.value,
    )
    if mean is None or total is None:
        return False
    if math.isnan(mean) or math.isnan(total):
        return math.isnan(mean) and math.isnan(total)
    return abs(mean - total) <= result.dataset.rounding


def settled(result: DatasetResult, why: str, judge: str | None) -> DatasetResult:
    """The result with its questions if they come to its total, else with the total alone.

    Verdicts that nobody gave are left out of the score, which is then the mean of the others.

    Args:
        result: with the kit's total and the questions as they were read.
        why: what to say where there are none.
        judge: who decided, as far as the total alone says.

    Raises:
        UnreadableError: the total alone is no number.
    """
    name = result.dataset.name
    if fits(result):
        if not result.missing:
            return result
        known = _mean((q.question_id, q.score, q.stratum) for q in result.questions)
        left_out = f"{name}: {result.missing} verdicts that nobody gave are left out"
        return replace(result, value=known, notes=(*result.notes, left_out))
    total = result.value
    if total is None or not math.isfinite(total):
        raise UnreadableError(f"{name} has a score that is no number")
    if result.questions:
        mean = _mean((q.question_id, q.counted, q.stratum) for q in result.questions)
        why = f"as {total:.4f} is not the mean of its questions, {mean or 0.0:.4f}"
    alone = f"{name}: the total alone, {why}"
    return replace(result, questions=(), judge=judge, notes=(*result.notes, alone))


def _mean(values: Iterable[tuple[str, float | None, str]]) -> float | None:
    return summed_up([Outcome(n, v, None, stratum=s) for n, v, s in values], 0.0).value


@dataclass(frozen=True)
class Skipped:
    """A file that was not read, and why."""

    file: Path
    why: str


@dataclass
class Found:
    """Everything in a folder."""

    models: list[ModelResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, file: Path, why: str) -> None:
        """Note a file that is not read."""
        self.skipped.append(Skipped(file, why))


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
