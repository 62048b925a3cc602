"""The browser's questions: what was asked, and what each model answered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.benchmark_names import COLUMNS
from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation, Ledger, Sample
from rilbench.report.scores import model_label, suite_label
from rilbench.report.selection import ROLES, Subject

Key = tuple[str, str]
"""Benchmark and question id, as a sample has them."""

GONE = "the questions' folder is gone, so that their pictures and full text are not there"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One model's answers. ``run`` is the number of the subject that brought it."""

    evaluation: Evaluation
    role: str
    label: str
    run: int


@dataclass(frozen=True)
class Asked:
    """What a question shows: its text and its picture files, of a circular one the first turn."""

    text: str
    pictures: tuple[Path, ...] = ()
    turns: int = 1


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with every model's answer, None where it was not asked."""

    key: Key
    asked: Asked
    stem: str
    gold: str
    answers: tuple[Sample | None, ...]

    @property
    def changed(self) -> bool:
        """Some models' outcomes differ."""
        return len({None if each is None else each.score for each in self.answers}) > 1


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """All questions that one kit asked of one suite.

    Attributes:
        title: the suite and the kit.
        columns: whose answers there are, in the order of `ROLES`.
        questions: benchmark by benchmark.
        note: why there is no picture, or nothing.
    """

    title: str
    columns: tuple[Column, ...]
    questions: tuple[Question, ...]
    note: str = ""


@dataclass
class _Texts:
    """What is known of the questions of a folder of prompts."""

    asked: dict[Key, Asked] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, suite: str) -> _Texts:
        """Read a folder of prompts as far as it can be read."""
        texts = cls()
        names = _columns_of(suite)
        try:
            with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
                for line in lines:
                    texts._take(json.loads(line), names, folder)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # Somebody else's file, or half of one: what was read before is good.
            pass
        return texts

    def _take(
        self, row: Mapping[str, Any], names: Mapping[str, tuple[str, bool]], folder: Path
    ) -> None:
        if row["dataset"] not in names:
            return
        column, several = names[row["dataset"]]
        key = (column, f"{row['dataset']}/{row['group']}" if several else str(row["group"]))
        first = self.asked.get(key)
        if first is not None:
            self.asked[key] = Asked(first.text, first.pictures, first.turns + 1)
            return
        parts = row["parts"]
        text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
        files = [folder / str(part["path"]) for part in parts if part["type"] == "image"]
        inside = tuple(file for file in files if _is_within(file, folder))
        self.asked[key] = Asked(text or str(row.get("question", "")), inside)


def _is_within(file: Path, folder: Path) -> bool:
    """A prompt names pictures of its own folder, and no other file of this machine."""
    return "\0" not in str(file) and file.resolve().is_relative_to(folder.resolve())


def _columns_of(suite: str) -> dict[str, tuple[str, bool]]:
    """{data set: (benchmark, whether it has several)}; no two kits have a name in common."""
    if suite not in SUITES:
        return {}
    return {
        dataset.name: (benchmark.column, len(datasets) > 1)
        for benchmark in SUITES[suite].benchmarks
        for datasets in benchmark.by_kit.values()
        for dataset in datasets
    }


def question_sets(ledger: Ledger, subjects: Sequence[Subject]) -> list[QuestionSet]:
    """Gather the questions of all evaluations, those of one suite and kit side by side."""
    columns: dict[tuple[str, str], dict[int, Column]] = {}
    for run, subject in enumerate(subjects):
        for role, each in subject.evaluations:
            name = model_label(each, several=len(subjects) > 1)
            column = Column(evaluation=each, role=role, label=name, run=run)
            columns.setdefault((each.suite, each.kit), {}).setdefault(each.id or 0, column)
    found = [_question_set(ledger, list(own.values())) for own in columns.values()]
    return [each for each in found if each.questions]


def _question_set(ledger: Ledger, columns: list[Column]) -> QuestionSet:
    columns = sorted(columns, key=lambda each: (each.run, ROLES.index(each.role)))
    answers: dict[Key, list[Sample | None]] = {}
    for number, column in enumerate(columns):
        for sample in ledger.samples(column.evaluation.id or 0):
            key = (sample.benchmark, sample.question_id)
            answers.setdefault(key, [None] * len(columns))[number] = sample
    first = columns[0].evaluation
    texts = _texts(columns, first.suite)
    questions = [_question(key, texts, answers[key]) for key in sorted(answers, key=_place)]
    return QuestionSet(
        title=suite_label(first),
        columns=tuple(columns),
        questions=tuple(questions),
        note="" if texts.asked else GONE,
    )


def _place(key: Key) -> int:
    """Benchmarks in the paper's order; within one, as they were recorded (the sort is stable)."""
    return COLUMNS.index(key[0]) if key[0] in COLUMNS else len(COLUMNS)


def _texts(columns: Iterable[Column], suite: str) -> _Texts:
    """The questions as the first model was asked them whose folder is still there.

    What is reported comes first: its prompts may be others than its teachers'.
    """
    ordered = sorted(columns, key=lambda each: (each.role != "after", each.run))
    folders = dict.fromkeys(each.evaluation.settings.get("questions") for each in ordered)
    texts = _Texts()
    for folder in folders:
        if isinstance(folder, str) and folder and "\0" not in folder:
            texts.asked = _Texts.read(Path(folder), suite).asked | texts.asked
    return texts


def _question(key: Key, texts: _Texts, answers: list[Sample | None]) -> Question:
    there = [each for each in answers if each is not None]
    stem = next((each.stem for each in there if each.stem), "")
    gold = next((each.gold for each in there if each.gold is not None), "")
    asked = texts.asked.get(key, Asked(stem))
    return Question(
        key=key,
        asked=asked if asked.text else dataclasses.replace(asked, text=stem),
        stem=stem,
        gold=gold,
        answers=tuple(answers),
    )


def by_need(questions: Iterable[Question]) -> list[Question]:
    """The order in which questions get their pictures while there is room.

    Those with different outcomes first; then from all benchmarks alike.
    """

    def order(question: Question) -> tuple[bool, str]:
        return not question.changed, hashlib.sha256("/".join(question.key).encode()).hexdigest()

    return sorted(questions, key=order)
