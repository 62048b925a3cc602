"""Imported results as evaluations of the ledger.

An imported score says what it does not know: the kit's version and the judge are "unknown" unless
the files name them, the data are "unverified", and their hash is that of the questions' ids and
golds. So an imported score is only compared with other imported ones, never with one that rilbench
made itself.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Benchmark, Suite
from rilbench.importers.types import DatasetResult, ModelResult
from rilbench.ledger import Evaluation, Ledger, Sample, Score, utc_now
from rilbench.ledger.builder import ScoredDataset, build_score, sha256
from rilbench.ledger.identity import identified, identity
from rilbench.ledger.records import NO_ANSWER, Reading
from rilbench.printable import printable

_KITS = {VLMEVALKIT: "ms-vlmeval", LMMSEVAL: "lmms-eval"}
"""The kits' packages, as evaluations by rilbench name them."""
_CACHED = re.compile(r"(?:^|/|__)models--([^/]+?)(?:/|__)snapshots(?:/|__)[0-9a-f]+/?$")
"""A snapshot in the hub's cache; lmms-eval's folders have "__" for "/"."""


@dataclass(frozen=True)
class ImportLabels:
    """The model's labels in the table; without a student, the kit's name for the model.

    Attributes:
        student: label of the only model.
        method, teacher: labels.
        students: labels of several models, by the kit's names for them.
    """

    student: str | None = None
    method: str = "base"
    teacher: str = "none"
    students: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [("student", self.student), ("method", self.method), ("teacher", self.teacher)]
        for name, text in [*labels, *(("student", text) for text in self.students.values())]:
            if text is not None and (not text.strip() or not text.isprintable()):
                raise UserError(
                    f"--{name} {text!r} is empty or has control characters; give a plain name"
                )

    def of(self, model: str) -> str:
        """Return the student's label of a model that the kit calls so."""
        return self.students.get(model) or self.student or model


def read_labels(
    students: Sequence[str], method: str, teacher: str, models: Sequence[ModelResult]
) -> ImportLabels:
    """Return the labels of ``--student NAME`` for one model, or ``--student MODEL=NAME`` for each.

    Raises:
        UserError: one name for several models, a model that is not there, or no plain name.
    """
    names = sorted({plain(model.model) for model in models})
    known = ", ".join(names)
    mapped: dict[str, str] = {}
    alone: list[str] = []
    for text in students:
        model, mark, label = text.rpartition("=")
        if mark and model in names:
            mapped[model] = label
        elif mark and len(names) > 1:
            raise UserError(f"--student {text!r}: no model is called {model!r}; there is {known}")
        else:
            alone.append(text)
    if len(alone) > 1 or (alone and (mapped or len(names) > 1)):
        raise UserError(
            f"--student {alone[0]!r} names one model, but there is {known}; give --student "
            "MODEL=NAME for each, or one model's folder"
        )
    return ImportLabels(alone[0] if alone else None, method, teacher, mapped)


@dataclass(frozen=True)
class Imported:
    """An evaluation with notes for the reader, and whether the ledger already had it.

    An evaluation without scores is not written: the model has no whole benchmark.
    """

    evaluation: Evaluation
    notes: tuple[str, ...]
    known: bool = False


def record(
    models: Sequence[ModelResult],
    suite: Suite,
    labels: ImportLabels,
    ledger: Ledger,
    *,
    write: bool = True,
) -> list[Imported]:
    """Write the evaluations that the ledger lacks, all of them or, after an error, none.

    What two imports at the same time read is recorded once. A model is known by the kit's name for
    it while its folder or its files are the same: results of two folders never share a row
    of the table because somebody gave two models one name.

    Args:
        models: see `rilbench.importers.folder.read_folder`.
        suite: the benchmarks' suite.
        labels: the models' labels, see `read_labels`.
        ledger: where they are written.
        write: False to return what would be written.

    Raises:
        UserError: see `Ledger`.
    """
    built = [to_evaluation(model, suite, labels) for model in models]
    done = []
    with ledger.one_transaction() if write else nullcontext():
        recorded = ledger.evaluations(suite.name)
        for evaluation, notes in built:
            known = any(identity(evaluation) == identity(other) for other in recorded)
            evaluation, namesake = identified(evaluation, recorded, by_place=True)
            if write and evaluation.scores and not known:
                evaluation = dataclasses.replace(evaluation, id=ledger.record(evaluation))
                recorded.append(evaluation)
            if namesake is not None and not known:
                notes = (
                    *notes,
                    f"evaluation {namesake.id} is of another model that is called "
                    f"{evaluation.settings['imported']['model']} too, from {namesake.path}: they "
                    "have rows of their own; --student NAME tells them apart",
                )
            done.append(Imported(evaluation, notes, known))
    return done


def plain(name: str) -> str:
    """Return a model's name on one line; of a path in the hub's cache, the repository's name."""
    name = printable(name).strip() or "unnamed"
    cached = _CACHED.search(name)
    return name if cached is None else cached[1].replace("--", "/", 1)


def to_evaluation(
    model: ModelResult, suite: Suite, labels: ImportLabels
) -> tuple[Evaluation, tuple[str, ...]]:
    """Return the evaluation and its notes; without scores when no benchmark is whole."""
    built, notes, readings = [], list(model.notes), {}
    for benchmark in suite.known_to(model.kit).benchmarks:
        names = [dataset.name for dataset in benchmark.datasets]
        results = [model.datasets[name] for name in names if name in model.datasets]
        if not results:
            continue
        notes += [note for result in results for note in result.notes]
        if len(results) < len(names):
            lacking = ", ".join(name for name in names if name not in model.datasets)
            notes.append(f"{benchmark.column} lacks {lacking} and is not imported")
            continue
        built.append(_score(benchmark, model, results, suite, notes))
        if reading := _reading(results).as_settings():
            readings[benchmark.column] = reading
    digests = model.hashes.values()
    if model.created is None:
        notes.append("its files do not say when they were made: it is dated by this import")
    place = _valid_path(model.folder.resolve())
    imported = {
        "kit": _KITS[model.kit],
        "model": plain(model.model),
        "folder": place,
        # A list: the ledger drops entries whose names end like those of secrets.
        "files": [
            {"file": _valid_path(file.relative_to(model.folder)), "sha256": digest}
            for file, digest in model.hashes.items()
        ],
        "notes": notes,
    }
    evaluation = Evaluation(
        path=place,
        # Without the weights; `identified` finds the same model in the ledger.
        fingerprint=f"imported-{sha256(' '.join([plain(model.model), *digests]))[:12]}",
        student=labels.of(plain(model.model)),
        method=labels.method,
        teacher=labels.teacher,
        suite=suite.name,
        created=model.created or utc_now(),
        settings={"imported": imported, "reading": readings},
        scores=tuple(score for score, _ in built),
        samples=tuple(sample for _, samples in built for sample in samples),
    )
    return evaluation, tuple(notes)


def _valid_path(path: Path) -> str:
    r"""Return a path as text, a byte that is no UTF-8 as ``\xff``: two folders never look alike."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _score(
    benchmark: Benchmark,
    model: ModelResult,
    results: Sequence[DatasetResult],
    suite: Suite,
    notes: list[str],
) -> tuple[Score, tuple[Sample, ...]]:
    """Return a benchmark's score and samples, and append what a reader should know to notes."""
    count = sum(result.count for result in results)
    published = sum(dataset.questions for dataset in benchmark.datasets)
    partial = suite.published and 0 < count < published
    if partial:
        notes.append(f"{benchmark.column}: {count} of the {published} published questions")
    if not count:
        notes.append(f"{benchmark.column}: no file says how many questions were scored")
    judges = sorted({result.judge for result in results if result.judge is not None})
    datasets = [
        ScoredDataset(
            name=result.dataset.name,
            value=result.value,
            samples=_samples(benchmark.column, result),
            questions=result.count,
        )
        for result in results
    ]
    return build_score(
        datasets,
        benchmark=benchmark.column,
        kit=_KITS[model.kit],
        kit_version="+".join(sorted({result.kit_version for result in results})),
        dataset=benchmark.name,
        metric="+".join(dict.fromkeys(r.metric for r in results if r.metric)) or benchmark.metric,
        judge="+".join(judges) or None,
        data_sha256=_data_hash(results),
        data_state="unverified",
        sampled=count if partial else None,
        asked="+".join(sorted({result.asked for result in results})),
    )


def _reading(results: Sequence[DatasetResult]) -> Reading:
    """Return how the responses could be read, as far as the files say."""
    questions = [question for result in results for question in result.questions]
    causes = Counter(question.no_answer for question in questions if question.no_answer)
    return Reading(no_answer=dict(causes), unread=sum(question.unread for question in questions))


def _samples(column: str, result: DatasetResult) -> list[Sample]:
    return [
        Sample(
            benchmark=column,
            question_id=question.question_id,
            prompt_hash=question.prompt_hash,
            response=question.response,
            score=question.score,
            gold=question.gold,
            judge=result.judge if question.judged else None,
            finish_reason=NO_ANSWER + question.no_answer if question.no_answer else None,
            extracted=question.extracted,
            stem=question.stem,
            stratum=question.stratum,
            category=question.category,
        )
        for question in result.questions
    ]


def _data_hash(results: Sequence[DatasetResult]) -> str:
    """Return a hash of the questions' ids and golds.

    A total alone has the hash of its file, which no other score shares.
    """
    parts = []
    for result in results:
        name = result.dataset.name
        if result.questions:
            known = sorted([q.question_id, q.gold or "", q.stem or ""] for q in result.questions)
            parts.append(json.dumps(["imported questions", name, known]))
        else:
            digests = [sha256(file) for file in result.files]
            parts.append(json.dumps(["imported total", name, digests]))
    return sha256(" ".join(parts))
