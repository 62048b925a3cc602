"""The laboratory's rows as training runs and evaluations of the ledger.

A row keeps every question's outcome, but no response and no prompt. Its samples therefore have an
empty response with `NOT_KEPT` as the reason why it ended, and its scores an empty ``asked``: they
are comparable with each other, not with an evaluation whose prompts are known.

Rows of test are of the suite "nano", those of dev of "nano-dev", so that nothing ever compares the
two; their data differ as well.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rilbench.config import METHODS
from rilbench.errors import UserError
from rilbench.evaluate.suite import NANO_DEV, Benchmark, Dataset, suite
from rilbench.importers.types import Skipped
from rilbench.lab.experiment import STUDENT
from rilbench.lab.run_result import METRICS, Outcomes, read_result
from rilbench.lab.run_result import RunResult as Row
from rilbench.ledger import Evaluation, Ledger, Run, Sample, Score, utc_now
from rilbench.paths import nano_folder

NOT_KEPT = "not kept"
"""In the place of why a response ended."""
SUITES = {"test": "nano", "dev": NANO_DEV}
"""By the row's split."""
_CIRCULAR = 1_000_000
"""MMBench's files give the k-th rotation of question i the index i + k * this."""
_NO_TEACHERS = ("grpo", "dr-grpo")
_RECIPE = """\
# What the laboratory keeps of the recipe: these settings over those of the recipe and the student.
"""


@dataclass
class FoundRows:
    """The rows among some files: those of one split, how many are of the other, what is none."""

    rows: list[Row] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    left_out: int = 0
    skipped: list[Skipped] = field(default_factory=list)


def find_rows(files: Iterable[Path], split: str) -> FoundRows:
    """Read the rows among files of any kind; ``skipped`` are those that only begin like one.

    Raises:
        UserError: there is no such split.
    """
    if split not in SUITES:
        raise UserError(f"--split {split} is not known; use {' or '.join(SUITES)}")
    found = FoundRows()
    for file in files:
        if file.suffix != ".json" or not _begins_like_a_row(file):
            continue
        found.files.add(file)
        try:
            row = read_result(file)
            _check(row)
        except (UserError, TypeError, AttributeError) as error:
            found.skipped.append(Skipped(file, f"is no row of the laboratory: {error}"))
            continue
        if row.split == split:
            found.rows.append(row)
        else:
            found.left_out += 1
    return found


def _begins_like_a_row(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.read(40).lstrip("{ \n").startswith('"experiment"')
    except (OSError, ValueError):
        return False


def _check(row: Row) -> None:
    """Raise a UserError if the ledger cannot take a row that could be read."""
    if row.split not in SUITES or not (row.model or row.method in METHODS):
        raise UserError("its split or method is not known")
    if not row.scores.keys() <= row.outcomes.keys():
        raise UserError("a score has no outcomes")
    to_run(row)
    if row.failure is None:
        to_evaluation(row)


@dataclass(frozen=True)
class _Questions:
    """What a benchmark's file says of the questions of an `Outcomes`, in its order."""

    data_sha256: str
    data_state: str
    ids: Sequence[str]
    golds: Sequence[str | None]
    strata: Sequence[str]


def record_rows(rows: Iterable[Row], ledger: Ledger) -> int:
    """Write rows that the ledger does not have yet; return how many evaluations that made.

    Each row becomes one evaluation, and if it trained a model one `Run`. A row that failed has no
    scores: it becomes a run only. A row is known by the hash of all that it says, so that one that
    was run again is another evaluation.

    Raises:
        UserError: see `Ledger`.
    """
    there = {
        each.settings.get("imported", {}).get("sha256")
        for name in SUITES.values()
        for each in ledger.evaluations(name)
    }
    made = 0
    for row in rows:
        # The run first: after a kill in between the row still counts as new.
        if not row.model:
            ledger.record_run(to_run(row))
        if row.failure is None and row_hash(row) not in there:
            there.add(row_hash(row))
            ledger.record(to_evaluation(row))
            made += 1
    return made


def row_hash(row: Row) -> str:
    """SHA-256 of all that a row says."""
    return _sha256(json.dumps(dataclasses.asdict(row), sort_keys=True))


def family(row: Row) -> str:
    """Sixteen hex digits over what a row shares with those that differ in their seed alone."""
    own = (row.experiment, row.student, row.name, row.recipe, row.method, row.steps)
    return _sha256(json.dumps([*own, dict(row.settings)], sort_keys=True))[:16]


def run_name(row: Row) -> str:
    """``EXPERIMENT/STUDENT/NAME-SEED``, which no other row has."""
    return f"{row.experiment}/{row.student}/{row.name}-{row.seed}"


def labels(row: Row) -> tuple[str, str, str]:
    """Student, method and teacher as checkpoints of `rilbench train` carry them.

    The row's name says more than its method. It stands for the method, without the teachers at its
    end ("ril-both" is "ril" with both), and after the method where it does not begin with it
    ("beta=0.1" is "ril beta=0.1").
    """
    if row.model:
        student = row.student if row.model == STUDENT else f"nano-{row.model}"
        return student, "base", "none"
    assert row.method in METHODS
    sft = bool(row.settings.get("sft.steps"))
    teacher = "none" if row.method in _NO_TEACHERS and not sft else row.recipe
    method = f"sft+{row.method}" if sft and row.method != "sft" else row.method
    name, prefix = row.name.removesuffix(f"-{teacher}"), method.replace("+", "-")
    if name == prefix or name.startswith((f"{prefix}-", f"{prefix}+")):
        return row.student, method + name[len(prefix) :], teacher
    return row.student, f"{method} {name}", teacher


def to_run(row: Row) -> Run:
    """The run that made a row; its time is the one at which the row was begun to be written."""
    student, method, teacher = labels(row)
    cost = dataclasses.asdict(row.cost)
    figures = {**cost, "steps": row.steps, **dict.fromkeys(METRICS), **row.metrics}
    if row.failure is not None:
        figures["failure"] = dataclasses.asdict(row.failure)
    kept = ("experiment", "student", "name", "seed", "recipe", "method", "steps", "settings")
    recipe = {name: getattr(row, name) for name in kept}
    recipe["settings"] = dict(row.settings)
    created = row.created or utc_now()
    return Run(
        name=run_name(row),
        path=_path(row),
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
        figures=figures,
        curves=row.curves,
    )


def to_evaluation(row: Row) -> Evaluation:
    """The evaluation in a row, with a sample for each outcome."""
    student, method, teacher = labels(row)
    benchmarks = [b for b in suite("nano") if b.column in row.scores]
    questions = {b.column: _questions(b, row.outcomes[b.column], row.split) for b in benchmarks}
    trained = not row.model
    return Evaluation(
        path=_path(row),
        fingerprint=row.model_fingerprint or f"row-{row_hash(row)[:12]}",
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
                "sha256": row_hash(row),
                "split": row.split,
                "not_kept": ["responses", "prompts", "generation"],
            }
        },
        scores=tuple(_score(b, row, questions[b.column]) for b in benchmarks),
        samples=tuple(each for b in benchmarks for each in _samples(b, row, questions[b.column])),
    )


def _path(row: Row) -> str:
    return f"lab:{run_name(row)}"


def _score(benchmark: Benchmark, row: Row, questions: _Questions) -> Score:
    """The row's score. Every outcome is a verdict, so all count as answered; none says more."""
    kit, _, version = row.kit.rpartition(" ")
    count = len(row.outcomes[benchmark.column].values)
    return Score(
        benchmark=benchmark.column,
        value=row.scores[benchmark.column],
        kit=kit or "ms-vlmeval",
        kit_version=version or "unknown",
        dataset=benchmark.name,
        metric=benchmark.metric,
        judge=_judge(benchmark, row),
        questions=count,
        answered=count,
        missing=0,
        data_sha256=questions.data_sha256,
        data_state=questions.data_state,
    )


def _judge(benchmark: Benchmark, row: Row) -> str | None:
    return row.judge or "unknown" if benchmark.judged else None


def _samples(benchmark: Benchmark, row: Row, questions: _Questions) -> Iterable[Sample]:
    values = row.outcomes[benchmark.column].values
    for value, name, gold, stratum in zip(
        values, questions.ids, questions.golds, questions.strata, strict=True
    ):
        yield Sample(
            benchmark=benchmark.column,
            question_id=name,
            prompt_hash="",
            response="",
            score=value,
            gold=gold,
            judge=_judge(benchmark, row),
            finish_reason=NOT_KEPT,
            stratum=stratum,
        )


# ---- which questions they are


def _questions(benchmark: Benchmark, outcomes: Outcomes, split: str) -> _Questions:
    """The questions of the outcomes: those of the file here, if its hash says that they are.

    A row knows its questions by a hash alone. Where that of the file that is here differs, they are
    numbered in the row's order, and the hash stands for their data.
    """
    if split == "test":
        here = _file_questions(benchmark.column, nano_folder() / "benchmarks")
        if here is not None and _row_hash_of(here) == outcomes.questions:
            return here
    count = len(outcomes.values)
    return _Questions(
        data_sha256=_sha256(f"{SUITES[split]} {outcomes.questions}"),
        data_state="look-alike",
        ids=[f"#{number + 1}" for number in range(count)],
        golds=[None] * count,
        strata=[""] * count,
    )


def _row_hash_of(questions: _Questions) -> str:
    """As `rilbench.lab.run_result.outcomes_by_benchmark` makes it."""
    return _sha256("\n".join([questions.data_sha256, *questions.ids]))[:8]


@functools.cache
def _file_questions(column: str, folder: Path) -> _Questions | None:
    """The questions of a column's files in a folder, by name; None where a file is missing."""
    (benchmark,) = [each for each in suite("nano") if each.column == column]
    files = [folder / f"{dataset.name}.tsv" for dataset in benchmark.datasets]
    if not all(file.is_file() for file in files):
        return None
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    several = len(files) > 1
    golds: dict[str, str] = {}
    strata: dict[str, str] = {}
    for dataset, file in zip(benchmark.datasets, files, strict=True):
        for name, gold in _golds(dataset, file).items():
            own = f"{dataset.name}/{name}" if several else name
            golds[own], strata[own] = gold, dataset.name if several else ""
    ids = sorted(golds)
    return _Questions(
        data_sha256=hashes[0] if not several else _sha256(" ".join(hashes)),
        data_state="look-alike",
        ids=ids,
        golds=[golds[name] for name in ids],
        strata=[strata[name] for name in ids],
    )


def _golds(dataset: Dataset, file: Path) -> Mapping[str, str]:
    """The ground truth of each question; a circular one has those of its rotations."""
    import pandas as pd

    table: Any = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
    if dataset.split is not None:
        table = table[table["split"] == dataset.split]
    found: dict[str, str] = {}
    for index, answer in zip(table["index"], table["answer"], strict=True):
        name = str(int(index) % _CIRCULAR) if dataset.circular else index
        found[name] = f"{found[name]},{answer}" if name in found else answer
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
