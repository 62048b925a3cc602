"""The browser's questions: what was asked, and what each model responded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation, Ledger, Sample
from rilbench.report.scores import ScoreRow, benchmark_rank, model_label, suite_label
from rilbench.report.selection import ROLES, Subject, with_roles

QuestionKey = tuple[str, str]
"""Benchmark and question id, as a sample has them."""

GONE = "the questions' folder is gone, so their pictures and full texts are missing"


@dataclass(frozen=True, kw_only=True)
class ModelColumn:
    """One model's responses. ``subject`` is the number of what was asked for that it belongs to."""

    evaluation: Evaluation
    role: str
    label: str
    subject: int
    colour: str


@dataclass(frozen=True)
class QuestionContent:
    """A question's text and picture files; for a circular question those of its first turn."""

    text: str
    pictures: tuple[Path, ...] = ()
    turns: int = 1


@dataclass(frozen=True, kw_only=True)
class AnsweredQuestion:
    """One question with every model's sample; None if the model was not asked."""

    key: QuestionKey
    content: QuestionContent
    stem: str
    gold: str
    answers: tuple[Sample | None, ...]

    @property
    def changed(self) -> bool:
        """The models' outcomes differ."""
        return len({None if sample is None else sample.score for sample in self.answers}) > 1


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """All questions that one kit asked of one suite.

    Attributes:
        title: the suite and the kit.
        columns: the models, in the order of `ROLES`.
        questions: benchmark by benchmark.
        note: why there are no pictures; empty if there are.
    """

    title: str
    columns: tuple[ModelColumn, ...]
    questions: tuple[AnsweredQuestion, ...]
    note: str = ""


def question_sets(
    ledger: Ledger, subjects: Sequence[Subject], rows: Sequence[ScoreRow]
) -> list[QuestionSet]:
    """Gather the questions of all evaluations, one set for each suite and kit.

    Args:
        ledger: has the responses.
        subjects: whose evaluations they are.
        rows: have the models' colours.
    """
    own_row = {number: row for row in rows for number in row.evaluations}
    columns: dict[tuple[str, str], list[ModelColumn]] = {}
    for subject, role, evaluation in with_roles(subjects):
        row = own_row[evaluation.id or 0]
        name = model_label(evaluation, several=len(subjects) > 1)
        if row.evaluations[1:]:
            name = f"{model_label(evaluation)}, seed {evaluation.seed}"
        column = ModelColumn(
            evaluation=evaluation, role=role, label=name, subject=subject, colour=row.colour
        )
        columns.setdefault((evaluation.suite, evaluation.kit), []).append(column)
    sets = [_question_set(ledger, group) for group in columns.values()]
    return [questions for questions in sets if questions.questions]


def _question_set(ledger: Ledger, columns: list[ModelColumn]) -> QuestionSet:
    columns = sorted(columns, key=lambda column: (column.subject, ROLES.index(column.role)))
    answers: dict[QuestionKey, list[Sample | None]] = {}
    for number, column in enumerate(columns):
        for sample in ledger.samples(column.evaluation.id or 0):
            key = (sample.benchmark, sample.question_id)
            answers.setdefault(key, [None] * len(columns))[number] = sample
    # The first model's prompts count, the reported one before its teachers': theirs may differ.
    ordered = sorted(
        columns,
        key=lambda column: (column.role == "teacher", column.role != "after", column.subject),
    )
    benchmarks = _benchmarks_of_datasets([column.evaluation for column in columns])
    contents: dict[QuestionKey, QuestionContent] = {}
    for folder in dict.fromkeys(column.evaluation.settings.get("questions") for column in ordered):
        if isinstance(folder, str) and folder and "\0" not in folder:
            contents = _read_contents(Path(folder), benchmarks) | contents
    questions = []
    # The sort is stable: within a benchmark, questions stay in the order of the ledger.
    for key in sorted(answers, key=lambda key: benchmark_rank(key[0])):
        samples = [sample for sample in answers[key] if sample is not None]
        stem = next((sample.stem for sample in samples if sample.stem), "")
        gold = next((sample.gold for sample in samples if sample.gold is not None), "")
        content = contents.get(key, QuestionContent(stem))
        questions.append(
            AnsweredQuestion(
                key=key,
                content=content if content.text else dataclasses.replace(content, text=stem),
                stem=stem,
                gold=gold,
                answers=tuple(answers[key]),
            )
        )
    return QuestionSet(
        title=suite_label(columns[0].evaluation),
        columns=tuple(columns),
        questions=tuple(questions),
        note="" if contents else GONE,
    )


def _read_contents(
    folder: Path, benchmarks: Mapping[str, tuple[str, bool]]
) -> dict[QuestionKey, QuestionContent]:
    """Read a folder of prompts, as far as it exists and can be read."""
    contents: dict[QuestionKey, QuestionContent] = {}
    try:
        with (folder / "questions.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                dataset, group = row["dataset"], str(row["group"])
                if dataset not in benchmarks:
                    continue
                benchmark, several = benchmarks[dataset]
                key = (benchmark, f"{dataset}/{group}" if several else group)
                if key in contents:
                    turns = contents[key].turns + 1
                    contents[key] = dataclasses.replace(contents[key], turns=turns)
                    continue
                parts = row["parts"]
                text = "\n".join(str(part["text"]) for part in parts if part["type"] == "text")
                files = [folder / str(part["path"]) for part in parts if part["type"] == "image"]
                # Only pictures of the folder are read, and no other file of this machine.
                inside = [
                    file
                    for file in files
                    if "\0" not in str(file) and file.resolve().is_relative_to(folder.resolve())
                ]
                contents[key] = QuestionContent(text or str(row.get("question", "")), tuple(inside))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # Somebody else's file, or half of one: what was read before is good.
        pass
    return contents


def _benchmarks_of_datasets(evaluations: Sequence[Evaluation]) -> dict[str, tuple[str, bool]]:
    """Return {data set: (benchmark, whether the benchmark has several data sets)}.

    Args:
        evaluations: of one suite.
    """
    # The scores also have the benchmarks that are in no suite.
    benchmarks = {
        score.dataset: (score.benchmark, False) for e in evaluations for score in e.scores
    }
    suite = evaluations[0].suite
    if suite in SUITES:
        for benchmark in SUITES[suite].benchmarks:
            for datasets in benchmark.by_kit.values():
                for dataset in datasets:
                    benchmarks[dataset.name] = (benchmark.column, len(datasets) > 1)
    return benchmarks


def by_need(questions: Iterable[AnsweredQuestion]) -> list[AnsweredQuestion]:
    """Sort questions by their need of a picture, for as long as the page has room.

    Those with different outcomes come first; then all benchmarks alike, by a hash.
    """

    def order(question: AnsweredQuestion) -> tuple[bool, str]:
        return not question.changed, hashlib.sha256("/".join(question.key).encode()).hexdigest()

    return sorted(questions, key=order)
