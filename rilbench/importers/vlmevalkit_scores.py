"""A dataset's score and its questions, from VLMEvalKit's tables."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.kits.vlmevalkit import EXACT_MATCHING, VLMEvalKit
from rilbench.evaluate.prompts import Question as Asked
from rilbench.evaluate.suite import Dataset
from rilbench.importers.mathvista import is_right
from rilbench.importers.read_tables import Row, evened, number, read_table, text
from rilbench.importers.types import (
    UNKNOWN,
    DatasetResult,
    Found,
    Question,
    UnreadableError,
    fits,
    settled,
)

_MILLION = 1_000_000
_BETWEEN_ROTATIONS = "\n---\n"
_RULES_ALONE = "no GPT-based answer matching"
"""The kit's log where it had no judge, and its rules read no option."""
_GUESSED = "randomly generate one"
"""Its log where the judge said no option, so that it drew one."""
_NO_VERDICT = "retries failed"
"""Its log where a grader gave no grade, so that it wrote 0."""
_NO_ANSWER = "Failed to obtain answer"
"""In the place of an answer, where the model gave none."""


@dataclass(frozen=True)
class Files:
    """Of one dataset in one folder: the total with its judge, the answers, and the questions'
    tables with theirs."""

    total: Path
    judge: str
    answers: tuple[Path, ...]
    questions: Mapping[Path, str]


def read_dataset(dataset: Dataset, files: Files, version: str, found: Found) -> DatasetResult:
    """Read a dataset's score, and its questions where they come to that score.

    Raises:
        UnreadableError: the total cannot be read.
    """
    answers = _answers(dataset, files, found)
    total = _total(dataset, files.total)
    groups = {_group(row["index"], dataset) for row in answers}
    used = (files.total, *(files.answers if answers else ()))
    bare = DatasetResult(dataset, total, (), len(groups), None, version, used)
    # Of several judges' tables the newest, as its evaluation wrote the total last.
    newest = sorted(files.questions, key=lambda file: (-file.stat().st_mtime, file.name))
    reads = [
        read
        for file in newest
        if (read := _read(bare, file, files.questions[file], answers, found)) is not None
    ]
    best = next((read for read in reads if fits(read)), reads[0] if reads else bare)
    why = "as its questions cannot be read" if files.questions else "as no file has its questions"
    alone = None if dataset.judging == "none" else files.judge or UNKNOWN
    return settled(best, why, alone)


def _total(dataset: Dataset, file: Path) -> float:
    """The kit's own number on the 0-100 scale."""
    records: list[dict[str, Any]] = read_table(file)
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


def _answers(dataset: Dataset, files: Files, found: Found) -> list[Row]:
    """The rows with the model's answers; none where the file is not there or cannot be read."""
    for file in files.answers:
        try:
            rows = _rows(dataset, file)
        except UnreadableError as error:
            found.skip(file, str(error))
            continue
        return sorted(rows, key=lambda row: _order(row["index"]))
    return []


def _rows(dataset: Dataset, file: Path) -> list[Row]:
    """The rows of the dataset's split.

    Raises:
        UnreadableError: a column is missing, or an index is there twice.
    """
    rows = evened(read_table(file))
    for column in ("index", "prediction", "answer"):
        if column not in rows[0]:
            raise UnreadableError(f"has no column {column!r}")
    if dataset.split is not None:
        rows = [row for row in rows if row.get("split") == dataset.split]
    names = [text(row["index"]) for row in rows]
    if len(set(names)) < len(names) or "" in names:
        raise UnreadableError("has an index twice, or none")
    if dataset.circular and not all(name.isdecimal() for name in names):
        raise UnreadableError("has an index that is no number")
    return rows


def _read(
    bare: DatasetResult, file: Path, judge: str, answers: Sequence[Row], found: Found
) -> DatasetResult | None:
    """The result with the questions of one table; None where it cannot be read."""
    dataset = bare.dataset
    try:
        rows = _rows(dataset, file)
        groups: dict[str, list[Row]] = {}
        for row in answers or rows:
            groups.setdefault(_group(row["index"], dataset), []).append(row)
        if any(_group(row["index"], dataset) not in groups for row in rows):
            raise UnreadableError("has questions that the answers beside it lack")
        verdicts = [_verdict(dataset, row) for row in rows]
    except UnreadableError as error:
        found.skip(file, str(error))
        return None
    notes = bare.notes
    if judge == EXACT_MATCHING or any(verdict.rules_alone for verdict in verdicts):
        verdicts = [replace(verdict, judged=False) for verdict in verdicts]
    elif dataset.circular and any(verdict.guessed for verdict in verdicts):
        # Of a question that came out right the log does not say that an option was drawn.
        verdicts = [replace(each, guessed=each.guessed or each.judged) for each in verdicts]
        hidden = (
            "the judge failed, and the log hides lucky guesses; all that it decided is left out"
        )
        notes = (*notes, f"{dataset.name}: {hidden}")
    questions = []
    for row, verdict in zip(rows, verdicts, strict=True):
        name = _group(row["index"], dataset)
        questions.append(_question(dataset, name, row, verdict, groups[name]))
    return replace(
        bare,
        questions=tuple(questions),
        count=len(questions),
        judge=judge if any(verdict.judged for verdict in verdicts) else None,
        files=(*bare.files, file),
        notes=notes,
    )


@dataclass(frozen=True)
class _Verdict:
    """What the kit counted for a question, and who decided it: nobody when it is ``guessed``."""

    value: float
    judged: bool = False
    guessed: bool = False
    extracted: str | None = None
    rules_alone: bool = False
    """The kit had no judge, although its rules could not read the answer."""


def _verdict(dataset: Dataset, row: Row) -> _Verdict:
    """What a row of a table says.

    Raises:
        UnreadableError: a cell is not what it should be.
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
    return _Verdict(
        _share(number(_cell(row, "hit"))),
        judged=not _by_rules(dataset, row, log),
        guessed=_GUESSED in log,
        rules_alone=_RULES_ALONE in log,
    )


def _by_rules(dataset: Dataset, row: Row, log: str) -> bool:
    """Whether the kit's own rules decided a choice."""
    if dataset.circular:
        return log.startswith(("Failed in Prefetching", "Succeed During Pre-fetching"))
    # The kit logs the answer itself where it could read it, and else the judge's reply.
    return log.strip() == f"Match Log: {_as_pandas(row['prediction'])}.".strip()


def _as_pandas(value: Any) -> str:
    """An answer as the kit has it in its log."""
    return "nan" if value is None else str(value)


def _question(
    dataset: Dataset, name: str, row: Row, verdict: _Verdict, rotations: Sequence[Row]
) -> Question:
    replies = [text(each["prediction"]) for each in rotations]
    stem = Asked(dataset.name, name, name, "", None, (), question=text(row.get("question"))).stem
    return Question(
        question_id=name,
        score=None if verdict.guessed else verdict.value,
        counted=verdict.value,
        response=_BETWEEN_ROTATIONS.join("" if _NO_ANSWER in r else r for r in replies),
        gold=",".join(text(each["answer"]) for each in rotations),
        judged=verdict.judged,
        extracted=verdict.extracted,
        stem=stem or None,
    )


def _group(index: Any, dataset: Dataset) -> str:
    """The question that a row belongs to; a circular question has several rows."""
    name = text(index)
    return str(int(name) % _MILLION) if dataset.circular and name.isdecimal() else name


def _order(index: Any) -> tuple[int, str]:
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
    """The best of the matches with the accepted answers, a list or a list as text."""
    try:
        value = ast.literal_eval(cell) if isinstance(cell, str) else cell
        return _share(max(float(each) for each in value))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UnreadableError("has no list of matches where one should be") from error
