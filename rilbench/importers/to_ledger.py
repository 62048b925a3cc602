"""What a folder says of a model, as an evaluation of the ledger.

An imported score says what it does not know: the kit's version and the judge are "unknown" unless
the files name them, the data are "unverified", and their hash is that of the questions' names and
golds. Such a score is therefore compared with others of the same import format, never with one that
rilbench made itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rilbench.errors import UserError
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, Benchmark, Suite
from rilbench.importers.types import DatasetResult, ModelResult, Question
from rilbench.ledger import Evaluation, Ledger, Sample, Score

_KITS = {VLMEVALKIT: "ms-vlmeval", LMMSEVAL: "lmms-eval"}
"""The kits' packages, as evaluations by rilbench name them."""


@dataclass(frozen=True)
class Labels:
    """How the table is to call a model; the student's None is the kit's name for it."""

    student: str | None = None
    method: str = "base"
    teacher: str = "none"

    def __post_init__(self) -> None:
        for name, text in dataclasses.asdict(self).items():
            if text is not None and (not text.strip() or not text.isprintable()):
                raise UserError(
                    f"--{name} {text!r} is empty or has control characters; give a plain name"
                )


@dataclass(frozen=True)
class Imported:
    """An evaluation, what a reader should know of it, and whether the ledger had it already.

    One without scores is not written: the model has no whole benchmark.
    """

    evaluation: Evaluation
    notes: tuple[str, ...]
    known: bool = False


def record(
    models: Sequence[ModelResult],
    suite: Suite,
    labels: Labels,
    ledger: Ledger,
    *,
    write: bool = True,
) -> list[Imported]:
    """Write what the ledger does not have yet, each evaluation whole or not at all.

    Args:
        models: see `rilbench.importers.folder.read_folder`.
        suite: whose benchmarks they are.
        labels: of the only model, where they name a student.
        ledger: what it has already is not written again.
        write: else only say what would be written.

    Raises:
        UserError: one student's name for several models, or see `Ledger`.
    """
    if labels.student is not None and len({each.model for each in models}) > 1:
        names = ", ".join(sorted({plain(each.model) for each in models}))
        raise UserError(f"--student names one model, but there is {names}; give one model's folder")
    there = {_key(each) for each in ledger.evaluations(suite.name)}
    done = []
    for model in models:
        evaluation, notes = to_evaluation(model, suite, labels)
        known = _key(evaluation) in there
        if write and evaluation.scores and not known:
            number = ledger.record(evaluation)
            evaluation = dataclasses.replace(evaluation, id=number)
            there.add(_key(evaluation))
        done.append(Imported(evaluation, notes, known))
    return done


def _key(evaluation: Evaluation) -> tuple[object, ...]:
    """What tells one import from another: the files' content and the labels, not their place."""
    imported = evaluation.settings.get("imported", {})
    files = sorted(str(each["sha256"]) for each in imported.get("files", ()))
    own = (evaluation.student, evaluation.method, evaluation.teacher)
    return (*own, imported.get("model"), *files)


def plain(name: str) -> str:
    """A name on one line, without control characters."""
    return "".join(mark if mark.isprintable() else " " for mark in name).strip() or "unnamed"


def to_evaluation(
    model: ModelResult, suite: Suite, labels: Labels
) -> tuple[Evaluation, tuple[str, ...]]:
    """The evaluation, and its notes; without scores where no benchmark is whole."""
    scores, samples = [], []
    notes = list(model.notes)
    for benchmark in suite.by(model.kit).benchmarks:
        found = [model.datasets.get(dataset.name) for dataset in benchmark.datasets]
        results = [each for each in found if each is not None]
        if not results:
            continue
        notes += [note for each in results for note in each.notes]
        if len(results) < len(found):
            lacking = [d.name for d, f in zip(benchmark.datasets, found, strict=True) if f is None]
            notes.append(f"{benchmark.column} lacks {', '.join(lacking)} and is not imported")
            continue
        score, note = _score(benchmark, model, results, suite)
        scores.append(score)
        notes += note
        samples += [_sample(benchmark, each, q) for each in results for q in each.questions]
    imported = {
        "kit": _KITS[model.kit],
        "model": plain(model.model),
        "folder": str(model.folder.resolve()),
        # A list: the ledger drops entries whose names end like those of secrets.
        "files": [
            {"file": str(file.relative_to(model.folder)), "sha256": digest}
            for file, digest in model.hashes.items()
        ],
        "notes": notes,
    }
    student = labels.student or plain(model.model)
    evaluation = Evaluation(
        path=str(model.folder.resolve()),
        # The weights are not there. The name stands for them, so that both kits' results of a
        # model are seen to be of one.
        fingerprint=f"imported-{_sha256(plain(model.model))[:12]}",
        student=student,
        method=labels.method,
        teacher=labels.teacher,
        suite=suite.name,
        created=model.created,
        settings={"imported": imported},
        scores=tuple(scores),
        samples=tuple(samples),
    )
    return evaluation, tuple(notes)


def _score(
    benchmark: Benchmark, model: ModelResult, results: Sequence[DatasetResult], suite: Suite
) -> tuple[Score, list[str]]:
    values = [each.value for each in results if each.value is not None]
    questions = [question for each in results for question in each.questions]
    count = sum(each.count for each in results)
    published = sum(dataset.questions for dataset in benchmark.datasets)
    few = suite.published and 0 < count < published
    judges = sorted({each.judge for each in results if each.judge is not None})
    versions = sorted({each.kit_version for each in results})
    notes = [f"{benchmark.column}: {count} of the {published} published questions"] if few else []
    if not count:
        notes.append(f"{benchmark.column}: no file says how many questions were scored")
    score = Score(
        benchmark=benchmark.column,
        value=statistics.fmean(values) if len(values) == len(results) else None,
        kit=_KITS[model.kit],
        kit_version="+".join(versions),
        dataset=benchmark.name,
        metric=benchmark.metric,
        judge="+".join(judges) or None,
        questions=count,
        # Without the answers nobody knows; then all count.
        answered=_answered(questions) if len(questions) == count else count,
        missing=sum(each.missing for each in results),
        data_sha256=_data(results),
        data_state="unverified",
        sampled=count if few else None,
        asked="+".join(sorted({each.asked for each in results})),
    )
    return score, notes


def _answered(questions: Sequence[Question]) -> int:
    return sum(bool(question.response.replace("\n---\n", "").strip()) for question in questions)


def _data(results: Sequence[DatasetResult]) -> str:
    """Hash of the questions' names and golds; of a total alone, of its file, like no other."""
    own = []
    for each in results:
        if each.questions:
            known = sorted([q.question_id, q.gold or "", q.stem or ""] for q in each.questions)
            own.append(json.dumps(["imported questions", each.dataset.name, known]))
        else:
            digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in each.files]
            own.append(json.dumps(["imported total", each.dataset.name, digests]))
    return _sha256(" ".join(own))


def _sample(benchmark: Benchmark, result: DatasetResult, question: Question) -> Sample:
    """A question as rilbench's own evaluations name it."""
    several = len(benchmark.datasets) > 1
    name, own = question.question_id, result.dataset.name
    return Sample(
        benchmark=benchmark.column,
        question_id=f"{own}/{name}" if several else name,
        prompt_hash=question.prompt_hash,
        response=question.response,
        score=question.score,
        gold=question.gold,
        judge=result.judge if question.judged else None,
        extracted=question.extracted,
        stem=question.stem,
        stratum=f"{own}/{question.stratum}".rstrip("/") if several else question.stratum,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
