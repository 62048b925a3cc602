"""A finished run as one small JSON file: what every table and figure is made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.ledger import Sample

FIGURES = ("step_seconds", "step_cpu_seconds", "yardstick_seconds", "memory_gb")
"""What a step took and held: see `rilbench.train.pipeline.ledger_summary.figures`."""


@dataclass(frozen=True)
class Outcomes:
    """Every question's outcome (0 to 1) of one benchmark, in the order of the questions' names.

    ``questions`` is a hash of those names and of the benchmark's data: two lists may be compared
    when it is equal.
    """

    questions: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    """What a run cost, evaluation excluded; the shared collection is counted in full.

    Attributes:
        sampled_tokens: tokens that the student sampled in the loop.
        teacher_tokens: tokens of saved teacher rows that were used, each time that they were.
        trained_tokens: response tokens in the policy's or SFT's loss, times passes.
        judge_calls: verdicts asked for.
        collected_tokens: tokens of all saved responses that the run needs: the teachers', and the
            student's own that the discriminator is pre-trained on.
        cpu_seconds: user and system time by stage; ``collect`` is that of the collection.
    """

    sampled_tokens: int = 0
    teacher_tokens: int = 0
    trained_tokens: int = 0
    judge_calls: int = 0
    collected_tokens: int = 0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """CPU seconds of all stages."""
        return sum(self.cpu_seconds.values())


@dataclass(frozen=True)
class Failure:
    """A run that stopped for good: at which step, and why."""

    step: int
    message: str


@dataclass(frozen=True)
class Row:
    """One run of one student with one seed, and everything that a reader may ask about it.

    ``settings`` are those that differ from the recipe's; ``scores`` go from 0 to 100; ``curves``
    has one value for each step; ``figures`` are `FIGURES`, as far as they were measured. A failed
    run has no scores.
    """

    experiment: str
    student: str
    name: str
    seed: int
    split: str
    steps: int
    recipe: str
    method: str
    model: str
    settings: Mapping[str, Any]
    recipe_fingerprint: str
    start_fingerprint: str
    model_fingerprint: str = ""
    commit: str | None = None
    dirty: bool = False
    kit: str = ""
    judge: str = ""
    created: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    curves: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None

    def mean(self, columns: Iterable[str]) -> float | None:
        """Plain mean over benchmarks; None when the run failed or one is missing."""
        values = [self.scores.get(column) for column in columns]
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present and len(present) == len(values) else None

    def file(self, rows: Path) -> Path:
        """Where the row stands under the folder of all rows."""
        return row_file(rows, self.experiment, self.student, self.name, self.seed)


def row_file(rows: Path, experiment: str, student: str, name: str, seed: int) -> Path:
    """``ROWS/EXPERIMENT/STUDENT/NAME-SEED.json``."""
    return rows / experiment / student / f"{name}-{seed}.json"


def outcomes(samples: Iterable[Sample], data: Mapping[str, str]) -> dict[str, Outcomes]:
    """Outcomes by column; a question without a verdict is an error of the evaluation.

    Args:
        samples: of one evaluation.
        data: hash of each column's data.

    Raises:
        UserError: a question has no verdict, so the run cannot be compared.
    """
    by_column: dict[str, dict[str, float]] = {}
    for sample in samples:
        if sample.score is None:
            raise UserError(
                f"question {sample.question_id} of {sample.benchmark} has no verdict; "
                "evaluate the run again"
            )
        by_column.setdefault(sample.benchmark, {})[sample.question_id] = sample.score
    found = {}
    for column, scores in by_column.items():
        names = sorted(scores)
        digest = hashlib.sha256("\n".join([data[column], *names]).encode()).hexdigest()[:8]
        found[column] = Outcomes(digest, tuple(round(scores[name], 4) for name in names))
    return found


def write_row(row: Row, rows: Path) -> Path:
    """Write a row whole or not at all, durable before it is there."""
    path = row.file(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(_dump(dataclasses.asdict(row)))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def read_row(path: Path) -> Row:
    """Read a row back.

    Raises:
        UserError: the file is not a row.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["outcomes"] = {
            column: Outcomes(found["questions"], tuple(found["values"]))
            for column, found in values["outcomes"].items()
        }
        values["cost"] = Cost(**values["cost"])
        values["failure"] = Failure(**values["failure"]) if values["failure"] else None
        return Row(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a row ({error}); delete it and run it again") from error


def read_rows(rows: Path, experiment: str) -> list[Row]:
    """All rows of an experiment, by student, name and seed."""
    found = [read_row(path) for path in (rows / experiment).glob("*/*.json")]
    return sorted(found, key=lambda row: (row.student, row.name, row.seed))


def _dump(values: Mapping[str, Any]) -> str:
    """JSON with a line for each value of the first two levels: small, and readable in a diff."""

    def text(value: Any) -> str:
        if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        if isinstance(value, list | tuple):
            return "[" + ",".join(text(item) for item in value) + "]"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{json.dumps(k)}: {text(v)}" for k, v in value.items()) + "}"
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            inner = ",\n".join(f"  {json.dumps(k)}: {text(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {text(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"
