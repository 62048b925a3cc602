"""A kit's results for a model, in the same form for both kits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from rilbench.evaluate.kits.scores import Outcome, summed_up
from rilbench.evaluate.suite import Dataset
from rilbench.ledger.builder import sha256

UNKNOWN = "unknown"
"""Replaces a version or a judge that the files do not name."""


class UnreadableError(Exception):
    """A file is not what its name says; the message says why, in a few words."""


MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RecursionError, OSError),
)
"""What reading values of another form than the kit's can raise."""


@contextmanager
def malformed_is_unreadable() -> Iterator[None]:
    """Raise an `UnreadableError` for any error of a file that has another form than the kit's.

    One odd file costs its data set, never the others of a folder.
    """
    try:
        yield
    except MALFORMED as error:
        raise UnreadableError(f"has another form than the kit's ({short(error)})") from error


def short(error: BaseException) -> str:
    """Return an error's first line, at most 120 characters; its type's name if it says nothing."""
    return (str(error).splitlines() or [""])[0][:120] or type(error).__name__


@dataclass(frozen=True)
class ImportedQuestion:
    """One scored question.

    Attributes:
        question_id: the kit's id within the data set.
        score: 0 to 1; None without a verdict.
        counted: the kit's own value, also where nobody decided.
        response: the model's reply; all replies to a circular question.
        gold: the ground truth.
        judged: whether a judge took part.
        extracted: the answer that the kit read from the response, None when no file says.
        stem: the question's text, None when no file says.
        stratum: the group whose mean counts, where the score is a mean of means.
        prompt_hash: hash of the prompt, empty when no file says.
        no_answer: why the model gave no answer; empty if it gave one.
        unread: whether it counts as wrong since the kit's rules read no option and no judge did.
        category: the benchmark's own category of it, None when no file says.
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
    no_answer: str = ""
    unread: bool = False
    category: str | None = None


@dataclass(frozen=True)
class DatasetResult:
    """A data set's score, with its questions where the files have them.

    Attributes:
        dataset: the suite's data set.
        value: 0 to 100; None when no question has a verdict.
        questions: empty when there is a total only.
        count: how many questions were scored; 0 when no file says.
        judge: its name, `UNKNOWN`, or None when no judge took part.
        kit_version: as the files name it, or `UNKNOWN`.
        files: the files that were read.
        asked: hash of the prompts and generation settings, `UNKNOWN` when no file says.
        notes: remarks for the reader.
        metric: the kit's name for the number; empty for the data set's usual one.
    """

    dataset: Dataset
    value: float | None
    questions: tuple[ImportedQuestion, ...]
    count: int
    judge: str | None
    kit_version: str
    files: tuple[Path, ...]
    asked: str = UNKNOWN
    notes: tuple[str, ...] = ()
    metric: str = ""

    @property
    def missing(self) -> int:
        """Questions without a verdict."""
        return sum(question.score is None for question in self.questions)


@dataclass(frozen=True)
class ModelResult:
    """One kit's results for one model.

    Attributes:
        kit: as in `rilbench.evaluate.suite`.
        model: the kit's name for it.
        folder: the model's folder.
        created: when it was evaluated by what the files or their names say, ISO 8601 in UTC; None
            if they do not. A file's own time is not asked: a copy or a clone has another.
        datasets: results by data set.
        notes: remarks for the reader.
    """

    kit: str
    model: str
    folder: Path
    created: str | None
    datasets: dict[str, DatasetResult]
    notes: tuple[str, ...] = ()

    @cached_property
    def hashes(self) -> dict[Path, str]:
        """SHA-256 of every file that was read."""
        files = {file for result in self.datasets.values() for file in result.files}
        return {file: sha256(file) for file in sorted(files)}


def fits(result: DatasetResult) -> bool:
    """Return whether the questions' mean, as the kit counts them, is the kit's total."""
    mean = _mean((q.question_id, q.counted, q.stratum) for q in result.questions)
    total = result.value
    if mean is None or total is None:
        return False
    if math.isnan(mean) or math.isnan(total):
        return math.isnan(mean) and math.isnan(total)
    return abs(mean - total) <= result.dataset.rounding


def settled(result: DatasetResult, why: str, judge: str | None) -> DatasetResult:
    """Return the result with its questions if their mean is its total, else the total alone.

    Verdicts that nobody gave do not count: the score is then the mean over the other questions.

    Args:
        result: the kit's total, and the questions as they were read.
        why: the reason to give when there are no questions.
        judge: the judge of the total alone.

    Raises:
        UnreadableError: the total alone is not a number.
    """
    name = result.dataset.name
    if fits(result):
        if not result.missing:
            return result
        value = _mean((q.question_id, q.score, q.stratum) for q in result.questions)
        lost = sum(bool(question.no_answer) for question in result.questions)
        notes = [f"{lost} questions without an answer are left out"] if lost else []
        if nobody := result.missing - lost:
            notes.append(f"{nobody} verdicts that nobody gave are left out")
        notes = [f"{name}: {note}" for note in notes]
        return replace(result, value=value, notes=(*result.notes, *notes))
    total = result.value
    if total is None or not math.isfinite(total):
        raise UnreadableError(f"{name} has a score that is no number")
    if result.questions:
        mean = _mean((q.question_id, q.counted, q.stratum) for q in result.questions)
        why = f"as {total:.4f} is not the mean of its questions, {mean or 0.0:.4f}"
    note = f"{name}: the total alone, {why}"
    return replace(result, questions=(), judge=judge, notes=(*result.notes, note))


def _mean(values: Iterable[tuple[str, float | None, str]]) -> float | None:
    return summed_up([Outcome(n, v, None, stratum=s) for n, v, s in values], 0.0).value


@dataclass(frozen=True)
class Skipped:
    """A file that was not read, and why."""

    file: Path
    why: str


@dataclass
class FolderResults:
    """Everything in a folder."""

    models: list[ModelResult] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, file: Path, why: str) -> None:
        """Note a file that is not read."""
        self.skipped.append(Skipped(file, why))
