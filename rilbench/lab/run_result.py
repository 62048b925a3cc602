"""The result of a finished run as one small JSON file; every table and plot is made from these."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.ledger import Sample
from rilbench.paths import whole_file

METRICS = ("step_seconds", "step_cpu_seconds", "yardstick_seconds", "memory_gb")
"""Time and memory of a step: see `rilbench.train.pipeline.ledger_summary.figures`."""


@dataclass(frozen=True)
class Outcomes:
    """Every question's outcome (0 to 1) of one benchmark, sorted by question id.

    ``questions`` is a hash of the ids and of the benchmark's data. Two lists may be compared when
    it is equal.
    """

    questions: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class RunCost:
    """What a run cost, evaluation excluded; the shared collection is counted in full.

    Attributes:
        sampled_tokens: tokens that the student sampled in the loop.
        teacher_tokens: tokens of the saved teacher responses, counted each time they were used.
        trained_tokens: response tokens in the policy's or SFT's loss, times passes.
        judge_calls: verdicts asked for.
        collected_tokens: tokens of all saved responses that the run needs: the teachers', and the
            student's for the discriminator's pre-training.
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
class RunFailure:
    """A run that stopped for good: the step, and the reason."""

    step: int
    message: str


@dataclass(frozen=True)
class RunResult:
    """The result of one run in one regime with one seed.

    Attributes:
        model: the evaluated model of a run that trains nothing, else "".
        settings: settings that differ from the recipe's.
        scores: scores by benchmark, 0 to 100; empty for a failed run.
        outcomes: outcomes of the questions by benchmark.
        curves: one value for each step, by metric.
        metrics: `METRICS`, as far as they were measured.
        engine: that trained it, ``verl`` or ``fast``.
        responses: which saved responses SFT learned; "": all.
        digest: of the regime: how its models were made.
    """

    experiment: str
    regime: str
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
    cost: RunCost = field(default_factory=RunCost)
    curves: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: RunFailure | None = None
    engine: str = "verl"
    responses: str = ""
    digest: str = ""

    def mean(self, benchmarks: Iterable[str]) -> float | None:
        """Plain mean over benchmarks; None when the run failed or one is missing."""
        values = [self.scores.get(benchmark) for benchmark in benchmarks]
        present = [value for value in values if value is not None]
        return statistics.fmean(present) if present and len(present) == len(values) else None

    def file(self, runs: Path) -> Path:
        """The file of this result in the folder of all results."""
        return result_file(runs, self.experiment, self.regime, self.name, self.seed)


def result_file(runs: Path, experiment: str, regime: str, name: str, seed: int) -> Path:
    """``RUNS/EXPERIMENT/REGIME/NAME-SEED.json``."""
    return runs / experiment / regime / f"{name}-{seed}.json"


def outcomes_by_benchmark(
    samples: Iterable[Sample], data: Mapping[str, str]
) -> dict[str, Outcomes]:
    """Return the outcomes of an evaluation's questions.

    Args:
        samples: the samples of one evaluation.
        data: hash of each benchmark's data.

    Raises:
        UserError: a question has no verdict, so the run cannot be compared.
    """
    scores: dict[str, dict[str, float]] = {}
    for sample in samples:
        if sample.score is None:
            raise UserError(
                f"question {sample.question_id} of {sample.benchmark} has no verdict; "
                "evaluate the run again"
            )
        scores.setdefault(sample.benchmark, {})[sample.question_id] = sample.score
    outcomes = {}
    for benchmark, by_question in scores.items():
        ids = sorted(by_question)
        digest = hashlib.sha256("\n".join([data[benchmark], *ids]).encode()).hexdigest()[:8]
        values = tuple(round(by_question[question], 4) for question in ids)
        outcomes[benchmark] = Outcomes(digest, values)
    return outcomes


def write_result(result: RunResult, runs: Path) -> Path:
    """Write a result atomically and durably, and return its file."""
    path = result.file(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        file.write(_to_json(dataclasses.asdict(result)))
        file.flush()
        os.fsync(file.fileno())
    return path


def read_result(path: Path) -> RunResult:
    """Read a result.

    Raises:
        UserError: the file is not a run result.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["outcomes"] = {
            benchmark: Outcomes(stored["questions"], tuple(stored["values"]))
            for benchmark, stored in values["outcomes"].items()
        }
        values["cost"] = RunCost(**values["cost"])
        values["failure"] = RunFailure(**values["failure"]) if values["failure"] else None
        return RunResult(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a run result ({error}); delete it and run again") from error


def read_results(runs: Path, experiment: str) -> list[RunResult]:
    """Read all results of an experiment, sorted by regime, name and seed."""
    results = [read_result(path) for path in (runs / experiment).glob("*/*.json")]
    return sorted(results, key=lambda result: (result.regime, result.name, result.seed))


def _to_json(values: Mapping[str, Any]) -> str:
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


def failure_of(run: Path) -> RunFailure | None:
    """Return the step at which a run's numbers stopped being finite; None where they did not."""
    from rilbench.train.nan_guard import STOPPED

    path = run / STOPPED
    if not path.exists():
        return None
    reason = path.read_text(encoding="utf-8").strip()
    step = re.search(r"step (\d+)", reason)
    return RunFailure(int(step[1]) if step else 0, reason)
