"""The nano sandbox's run results as training runs and evaluations of the ledger.

A run result keeps every question's outcome, but no response and no prompt. Its samples therefore
have an empty response with `NOT_KEPT` as finish reason, and its scores an empty ``asked``: they
are comparable with each other, not with an evaluation whose prompts are known.

Results on test questions belong to the suite "nano", those on dev questions to "nano-dev", so that
nothing ever compares the two. Their data differ as well.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rilbench.config import METHODS
from rilbench.errors import UserError
from rilbench.evaluate.suite import NANO_DEV, Benchmark, Dataset, suite
from rilbench.importers.types import MALFORMED, Skipped
from rilbench.lab.experiment import STUDENT
from rilbench.lab.run_result import METRICS, Outcomes, RunResult, read_result
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, utc_now
from rilbench.ledger.builder import NOT_KEPT, ScoredDataset, build_score, joint_sha256, sha256
from rilbench.paths import nano_folder

SUITES = {"test": "nano", "dev": NANO_DEV}
"""The suite of each split."""
_DATA_STATE = "stand-in"
_CIRCULAR = 1_000_000
"""MMBench's files give the k-th rotation of question i the index i + k * this."""
_NO_TEACHERS = ("grpo", "dr-grpo")
_RECIPE = """\
# The nano sandbox keeps these settings, which override those of the recipe and the student.
"""


@dataclass
class FoundResults:
    """The run results among some files.

    Attributes:
        rows: those of the split.
        files: all that look like run results.
        left_out: how many are of the other split.
        skipped: those that cannot be read.
    """

    rows: list[RunResult] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    left_out: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def find_results(files: Iterable[Path], split: str) -> FoundResults:
    """Read the run results among files of any kind.

    Raises:
        UserError: there is no such split.
    """
    if split not in SUITES:
        raise UserError(f"--split {split} is not known; use {' or '.join(SUITES)}")
    found = FoundResults()
    for file in files:
        if file.suffix != ".json" or not _begins_like_a_result(file):
            continue
        found.files.add(file)
        try:
            row = read_result(file)
            _check(row)
        except MALFORMED as error:
            found.skipped.append(Skipped(file, str(error)))
            continue
        if row.split == split:
            found.rows.append(row)
        else:
            found.left_out += 1
    return found


def _begins_like_a_result(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.read(40).lstrip("{ \n").startswith('"experiment"')
    except (OSError, ValueError):
        return False


def _check(row: RunResult) -> None:
    """Raise one of `MALFORMED` if the ledger cannot take a result that could be read."""
    if row.split not in SUITES or not (row.model or row.method in METHODS):
        raise UserError("its split or method is not known")
    if not row.scores.keys() <= row.outcomes.keys():
        raise UserError("a score has no outcomes")
    # Half a surrogate pair, or a number that is none.
    json.dumps(dataclasses.asdict(row), ensure_ascii=False, allow_nan=False).encode("utf-8")
    to_run(row)
    if row.failure is None:
        to_evaluation(row)


def record_results(rows: Iterable[RunResult], ledger: Ledger) -> int:
    """Write the results that the ledger lacks; return the number of new evaluations.

    A result becomes one evaluation and, if it trained a model, one `Run`. A failed result has no
    scores and becomes a run only. A result is known by the hash of its whole content, so a run
    that was repeated is another evaluation.

    Raises:
        UserError: see `Ledger`.
    """
    known = {
        evaluation.settings.get("imported", {}).get("sha256")
        for name in SUITES.values()
        for evaluation in ledger.evaluations(name)
    }
    new = 0
    for row in rows:
        # The run first: after a kill in between, the result still counts as new.
        if not row.model:
            ledger.record_run(to_run(row))
        if row.failure is None and result_hash(row) not in known:
            known.add(result_hash(row))
            ledger.record(to_evaluation(row))
            new += 1
    return new


def result_hash(row: RunResult) -> str:
    """Return the SHA-256 of a result's whole content."""
    return sha256(json.dumps(dataclasses.asdict(row), sort_keys=True))


def family(row: RunResult) -> str:
    """Return sixteen hex digits that results share when only their seeds differ."""
    shared = (row.experiment, row.regime, row.name, row.recipe, row.method, row.steps)
    return sha256(json.dumps([*shared, dict(row.settings)], sort_keys=True))[:16]


def run_name(row: RunResult) -> str:
    """Return ``EXPERIMENT/REGIME/NAME-SEED``, which no other result has."""
    return f"{row.experiment}/{row.regime}/{row.name}-{row.seed}"


def labels(row: RunResult) -> tuple[str, str, str]:
    """Return student, method and teacher, as checkpoints of `rilbench train` carry them.

    The result's name says more than its method, so it replaces the method, without the teachers
    at its end ("ril-both" is "ril" with both). A name that does not begin with the method follows
    it ("beta=0.1" is "ril beta=0.1").
    """
    student = f"nano-{row.regime}"
    if row.model:
        # A regime's teachers are its own: another one's have the same name.
        return student if row.model == STUDENT else f"{student}-{row.model}", "base", "none"
    assert row.method in METHODS
    sft = bool(row.settings.get("sft.steps"))
    teacher = "none" if row.method in _NO_TEACHERS and not sft else row.recipe
    method = f"sft+{row.method}" if sft and row.method != "sft" else row.method
    name, prefix = row.name.removesuffix(f"-{teacher}"), method.replace("+", "-")
    if name == prefix or name.startswith((f"{prefix}-", f"{prefix}+")):
        return student, method + name[len(prefix) :], teacher
    return student, f"{method} {name}", teacher


def to_run(row: RunResult) -> Run:
    """Return the training run of a result; its time is the one at which the result was written."""
    student, method, teacher = labels(row)
    metrics = {
        **dataclasses.asdict(row.cost),
        "steps": row.steps,
        **dict.fromkeys(METRICS),
        **row.metrics,
    }
    if row.failure is not None:
        metrics["failure"] = dataclasses.asdict(row.failure)
    kept = (
        "experiment",
        "regime",
        "digest",
        "engine",
        "name",
        "seed",
        "recipe",
        "method",
        "steps",
        "responses",
    )
    recipe = {name: getattr(row, name) for name in kept} | {"settings": dict(row.settings)}
    created = row.created or utc_now()
    return Run(
        name=run_name(row),
        path=f"lab:{run_name(row)}",
        recipe_fingerprint=row.recipe_fingerprint,
        recipe_yaml=_RECIPE + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True),
        student=student,
        method=method,
        teacher=teacher,
        status="finished" if row.failure is None else "stopped",
        created=created,
        finished=created if row.failure is None else None,
        family=family(row),
        seed=row.seed,
        metrics=metrics,
        curves=row.curves,
    )


def to_evaluation(row: RunResult) -> Evaluation:
    """Return the evaluation in a result, with a sample for each outcome."""
    student, method, teacher = labels(row)
    built = [_score(b, row) for b in suite("nano") if b.column in row.scores]
    trained = not row.model
    return Evaluation(
        path=f"lab:{run_name(row)}",
        fingerprint=row.model_fingerprint or f"row-{result_hash(row)[:12]}",
        student=student,
        method=method,
        teacher=teacher,
        run=run_name(row) if trained else None,
        start_fingerprint=row.start_fingerprint if trained else None,
        recipe_fingerprint=row.recipe_fingerprint if trained else None,
        family=family(row) if trained else None,
        seed=row.seed if trained else None,
        suite=SUITES[row.split],
        created=row.created or utc_now(),
        commit=row.commit,
        dirty=row.dirty,
        settings={
            "imported": {
                "from": "rilbench lab",
                "row": run_name(row),
                "sha256": result_hash(row),
                "split": row.split,
                "not_kept": ["responses", "prompts", "generation"],
            }
        },
        scores=tuple(score for score, _ in built),
        samples=tuple(sample for _, samples in built for sample in samples),
    )


def _score(benchmark: Benchmark, row: RunResult) -> tuple[Score, tuple[Sample, ...]]:
    column = benchmark.column
    kit, _, version = row.kit.rpartition(" ")
    judge = row.judge or "unknown" if benchmark.judged else None
    questions = _questions(benchmark, row.outcomes[column], row.split)
    samples = [
        Sample(
            benchmark=column,
            question_id=question_id,
            prompt_hash="",
            response="",
            score=value,
            gold=gold,
            judge=judge,
            finish_reason=NOT_KEPT,
            stratum=stratum,
            category=category,
        )
        for value, question_id, gold, stratum, category in zip(
            row.outcomes[column].values,
            questions.ids,
            questions.golds,
            questions.strata,
            questions.categories,
            strict=True,
        )
    ]
    # One data set even where the benchmark has two: ids and strata already name theirs.
    return build_score(
        [ScoredDataset(benchmark.name, row.scores[column], samples)],
        benchmark=column,
        kit=kit or "ms-vlmeval",
        kit_version=version or "unknown",
        dataset=benchmark.name,
        metric=benchmark.metric,
        judge=judge,
        data_sha256=questions.data_sha256,
        data_state=_DATA_STATE,
    )


# ---- which questions the outcomes belong to


@dataclass(frozen=True)
class _OutcomeQuestions:
    """The questions of an `Outcomes`, in its order."""

    data_sha256: str
    ids: Sequence[str]
    golds: Sequence[str | None]
    strata: Sequence[str]
    categories: Sequence[str | None]


def _questions(benchmark: Benchmark, outcomes: Outcomes, split: str) -> _OutcomeQuestions:
    """Return the questions of the installed file if its hash is that of the outcomes.

    A result identifies its questions by a hash alone. With another file installed, the questions
    are numbered in the result's order and the hash identifies their data.
    """
    if split == "test":
        installed = _file_questions(benchmark.column, nano_folder() / "benchmarks")
        # The hash is made as in `rilbench.lab.run_result`.
        if (
            installed is not None
            and outcomes.questions
            == (sha256("\n".join([installed.data_sha256, *installed.ids]))[:8])
        ):
            return installed
    count = len(outcomes.values)
    return _OutcomeQuestions(
        data_sha256=sha256(f"{SUITES[split]} {outcomes.questions}"),
        ids=[f"#{number + 1}" for number in range(count)],
        golds=[None] * count,
        strata=[""] * count,
        categories=[None] * count,
    )


@functools.cache
def _file_questions(column: str, folder: Path) -> _OutcomeQuestions | None:
    """Return the questions of a benchmark's files, by id; None when a file is missing."""
    (benchmark,) = [b for b in suite("nano") if b.column == column]
    files = [folder / f"{dataset.name}.tsv" for dataset in benchmark.datasets]
    if not all(file.is_file() for file in files):
        return None
    several = len(files) > 1
    golds: dict[str, str] = {}
    strata: dict[str, str] = {}
    categories: dict[str, str | None] = {}
    for dataset, file in zip(benchmark.datasets, files, strict=True):
        for index, (gold, category) in _golds(dataset, file).items():
            question_id = f"{dataset.name}/{index}" if several else index
            golds[question_id], strata[question_id] = gold, dataset.name if several else ""
            categories[question_id] = category
    ids = sorted(golds)
    return _OutcomeQuestions(
        data_sha256=joint_sha256([sha256(file) for file in files]),
        ids=ids,
        golds=[golds[question_id] for question_id in ids],
        strata=[strata[question_id] for question_id in ids],
        categories=[categories[question_id] for question_id in ids],
    )


def _golds(dataset: Dataset, file: Path) -> Mapping[str, tuple[str, str | None]]:
    """Return each question's truth (a circular one has those of its rotations) and category."""
    import pandas as pd

    table: Any = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    if dataset.split is not None:
        table = table[table["split"] == dataset.split]
    golds: dict[str, tuple[str, str | None]] = {}
    categories = table.get(dataset.category, [None] * len(table))
    for index, answer, category in zip(table["index"], table["answer"], categories, strict=True):
        question = str(int(index) % _CIRCULAR) if dataset.circular else index
        before = f"{golds[question][0]}," if question in golds else ""
        golds[question] = f"{before}{answer}", category
    return golds
