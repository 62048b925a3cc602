"""A data set's score and its questions, from VLMEvalKit's tables."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING, VLMEvalKit
from rilbench.evaluate.prompts import BenchmarkQuestion
from rilbench.evaluate.suite import Dataset
from rilbench.importers.mathvista import is_right
from rilbench.importers.read_tables import Row, normalised, number, read_table, text
from rilbench.importers.types import (
    MALFORMED,
    UNKNOWN,
    DatasetResult,
    FolderResults,
    ImportedQuestion,
    UnreadableError,
    fits,
    malformed_is_unreadable,
    settled,
)
from rilbench.ledger.builder import BETWEEN_ROTATIONS
from rilbench.ledger.records import NO_RESPONSE
from rilbench.serving.reply import EMPTY

_MILLION = 1_000_000
_LONGEST_INDEX = 1_000
"""Characters; a file with a longer one is damaged."""
_ONE_SPLIT = ("BLINK",)
"""Data sets of one split alone, whose files did not name it before 2025: the kit wrote "none"."""
_RULES_ALONE = "no GPT-based answer matching"
"""The kit's log without a judge, when its rules read no option."""
_GUESSED = "randomly generate one"
"""The kit's log when the judge named no option, so that the kit chose one at random."""
_NO_VERDICT = "retries failed"
"""The kit's log when a grader gave no grade, so that the kit wrote 0."""
_NO_ANSWER = "Failed to obtain answer"
"""The kit's text for a question that the model did not answer."""


@dataclass(frozen=True)
class DatasetFiles:
    """The files of one data set in one folder.

    Attributes:
        total: the score.
        judge: the judge of the total.
        answers: the model's answers.
        questions: tables of the questions, with their judges.
    """

    total: Path
    judge: str
    answers: tuple[Path, ...]
    questions: Mapping[Path, str]


def read_dataset(
    dataset: Dataset, files: DatasetFiles, version: str, results: FolderResults
) -> DatasetResult:
    """Read a data set's score, and its questions when their mean is that score.

    Raises:
        UnreadableError: the total cannot be read.
    """
    answers = _answers(dataset, files, results)
    total = _total(dataset, files.total)
    groups = {_group(row["index"], dataset) for row in answers}
    used = (files.total, *(files.answers if answers else ()))
    bare = DatasetResult(dataset, total, (), len(groups), None, version, used)
    # Several judges may each have a table: the newest, as its evaluation wrote the total last.
    newest = sorted(files.questions, key=lambda file: (-file.stat().st_mtime, file.name))
    candidates = [
        result
        for file in newest
        if (result := _with_questions(bare, file, files.questions[file], answers, results))
        is not None
    ]
    best = next(filter(fits, candidates), candidates[0] if candidates else bare)
    why = "as its questions cannot be read" if files.questions else "as no file has its questions"
    judge = None if dataset.judging == "none" else files.judge or UNKNOWN
    return settled(best, why, judge)


def _total(dataset: Dataset, file: Path) -> float:
    """Return the kit's own number on the 0-100 scale."""
    records = _with_split(dataset, read_table(file))
    for record in records:
        if dataset.metric in record:
            record[dataset.metric] = number(record[dataset.metric])
    try:
        total = VLMEvalKit().total(dataset, {"records": records})
    except UserError as error:
        raise UnreadableError(f"is not the score of {dataset.name}: {error}") from error
    if total is None or not (math.isnan(total) or 0 <= total <= 100):
        raise UnreadableError(f"has a score of {total}; scores go from 0 to 100")
    return total


# ---- tables of questions


def _answers(dataset: Dataset, files: DatasetFiles, results: FolderResults) -> list[Row]:
    """Return the rows with the model's answers; none when there is no readable file."""
    for file in files.answers:
        try:
            with malformed_is_unreadable():
                rows = _rows(dataset, file)
        except UnreadableError as error:
            results.skip(file, str(error))
            continue
        return sorted(rows, key=lambda row: _order(row["index"]))
    return []


def _rows(dataset: Dataset, file: Path) -> list[Row]:
    """Return the rows of the data set's split.

    Raises:
        UnreadableError: a column is missing, or an index is not unique.
    """
    rows = _with_split(dataset, normalised(read_table(file)))
    for column in ("index", "prediction", "answer"):
        if column not in rows[0]:
            raise UnreadableError(f"has no column {column!r}")
    if dataset.split is not None:
        rows = [row for row in rows if row.get("split") == dataset.split]
    names = [text(row["index"]) for row in rows]
    if len(set(names)) < len(names) or "" in names:
        raise UnreadableError("has an index twice, or none")
    if any(len(name) > _LONGEST_INDEX for name in names):
        raise UnreadableError(f"has an index of more than {_LONGEST_INDEX} characters")
    if dataset.circular and not all(name.isdecimal() for name in names):
        raise UnreadableError("has an index that is no number")
    return rows


def _with_split(dataset: Dataset, rows: list[Row]) -> list[Row]:
    """Return the rows of a data set of one split with that split, where they name none."""
    if dataset.name not in _ONE_SPLIT or any(
        row.get("split") not in (None, "none") for row in rows
    ):
        return rows
    return [{**row, "split": dataset.split} for row in rows]


def _with_questions(
    bare: DatasetResult, file: Path, judge: str, answers: Sequence[Row], results: FolderResults
) -> DatasetResult | None:
    """Return the result with the questions of one table; None when it cannot be read."""
    dataset = bare.dataset
    groups: dict[str, list[Row]] = {}
    try:
        with malformed_is_unreadable():
            rows = _rows(dataset, file)
            for row in answers or rows:
                groups.setdefault(_group(row["index"], dataset), []).append(row)
            if any(_group(row["index"], dataset) not in groups for row in rows):
                raise UnreadableError("has questions that the answers beside it lack")
            verdicts = [_verdict(dataset, row) for row in rows]
    except UnreadableError as error:
        results.skip(file, str(error))
        return None
    notes = bare.notes
    if judge == EXACT_MATCHING or any(verdict.rules_alone for verdict in verdicts):
        verdicts = [replace(verdict, judged=False) for verdict in verdicts]
    elif dataset.circular and any(verdict.guessed for verdict in verdicts):
        # For a question that came out right, the log does not say that an option was guessed.
        verdicts = [replace(v, guessed=v.guessed or v.judged) for v in verdicts]
        hidden = (
            "the judge failed, and the log hides lucky guesses; all that it decided is left out"
        )
        notes = (*notes, f"{dataset.name}: {hidden}")
    questions = tuple(
        _question(dataset, row, verdict, groups[_group(row["index"], dataset)])
        for row, verdict in zip(rows, verdicts, strict=True)
    )
    return replace(
        bare,
        questions=questions,
        count=len(questions),
        judge=judge if any(verdict.judged for verdict in verdicts) else None,
        files=(*bare.files, file),
        notes=notes,
    )


@dataclass(frozen=True)
class _Verdict:
    """The kit's value for a question, and who decided it: nobody when it is ``guessed``."""

    value: float
    judged: bool = False
    guessed: bool = False
    extracted: str | None = None
    rules_alone: bool = False
    """The kit had no judge, although its rules could not read the answer."""


def _verdict(dataset: Dataset, row: Row) -> _Verdict:
    """Read the verdict of a table's row.

    Raises:
        UnreadableError: a cell does not have the expected content.
    """
    if dataset.judging == "none":
        read = None if row.get("eval_pred") is None else text(row["eval_pred"])
        return _Verdict(_best_match(_cell(row, "eval_match")), extracted=read)
    log = text(_cell(row, "log"))
    if dataset.name == "MathVista_MINI":
        judged, lost = log != "Prefetch succeed", _NO_VERDICT in log
        return _Verdict(float(is_right(row)), judged, lost, text(_cell(row, "res")))
    if dataset.judged:
        value = number(_cell(row, "score"))
        if math.isnan(value):  # "nan" is a grade to the kit.
            return _Verdict(value, judged=True, guessed=True)
        return _Verdict(_share(value), judged=True, guessed=_NO_VERDICT in log)
    if dataset.circular:
        by_rules = log.startswith(("Failed in Prefetching", "Succeed During Pre-fetching"))
    else:
        # The kit logs the answer itself if its rules could read it, else the judge's reply.
        # An empty answer is "nan" in its log, as in pandas.
        answer = "nan" if row["prediction"] is None else str(row["prediction"])
        by_rules = log.strip() == f"Match Log: {answer}.".strip()
    return _Verdict(
        _share(number(_cell(row, "hit"))),
        judged=not by_rules,
        guessed=_GUESSED in log,
        rules_alone=_RULES_ALONE in log,
    )


def _question(
    dataset: Dataset, row: Row, verdict: _Verdict, rotations: Sequence[Row]
) -> ImportedQuestion:
    name = _group(row["index"], dataset)
    replies = [text(rotation["prediction"]) for rotation in rotations]
    asked = BenchmarkQuestion(
        dataset.name, name, name, "", None, (), question=text(row.get("question"))
    )
    # As in an evaluation by rilbench: what was never answered has no verdict.
    lost = [NO_RESPONSE if _NO_ANSWER in r else EMPTY for r in replies if _is_none(r)]
    no_answer = min(lost, key=(NO_RESPONSE, EMPTY).index, default="")
    return ImportedQuestion(
        question_id=name,
        score=None if verdict.guessed or lost else verdict.value,
        counted=verdict.value,
        response=BETWEEN_ROTATIONS.join("" if _NO_ANSWER in r else r for r in replies),
        gold=",".join(text(rotation["answer"]) for rotation in rotations),
        judged=verdict.judged and not lost,
        extracted=verdict.extracted,
        stem=asked.stem or None,
        no_answer=no_answer,
        category=text(rotations[0].get(dataset.category.lower())) or None,
        unread=verdict.rules_alone and not lost and row.get("question_type") != "open",
    )


def _is_none(reply: str) -> bool:
    return not reply.strip() or _NO_ANSWER in reply


def _group(index: Any, dataset: Dataset) -> str:
    """Return the question that a row belongs to; a circular question has several rows."""
    name = text(index)
    return str(int(name) % _MILLION) if dataset.circular and name.isdecimal() else name


def _order(index: Any) -> tuple[int, str]:
    """Return a sort key: numbers first, by value."""
    name = text(index)
    return (int(name), "") if name.isdecimal() else (_MILLION**2, name)


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise UnreadableError(f"has no column {column!r}")
    return row[column]


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise UnreadableError(f"has {value} where a share from 0 to 1 should be")
    return value


def _best_match(cell: Any) -> float:
    """Return the best of the matches with the accepted answers, from a list or its text."""
    try:
        value = ast.literal_eval(cell) if isinstance(cell, str) else cell
        return _share(max(float(match) for match in value))
    except (*MALFORMED, SyntaxError, MemoryError) as error:
        raise UnreadableError("has no list of matches where one should be") from error
