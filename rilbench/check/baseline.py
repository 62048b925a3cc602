"""The baseline file: for each kind of model its metrics, their bounds, and why they changed."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from rilbench.check.metrics import MEAN, Metric, Outcomes
from rilbench.check.thresholds import (
    ALPHA,
    DROP,
    REPETITIONS,
    Bound,
    bound,
    false_alarms,
    levels,
    power,
    seeded,
)
from rilbench.errors import UserError
from rilbench.ledger.records import Evaluation
from rilbench.paths import whole_file

FORMAT = 1
"""Raised when an older rilbench could not read the file."""
FILE = Path("results/baseline.json")
COMMAND = "rilbench check --update"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Entry:
    """One kind of model.

    With seeds it is a family: any model trained by its recipe, whatever the seed. Without, it is
    the model of these labels and, if it was trained, of this recipe and seed.

    Attributes:
        seeds: seeds of the calibration; empty for a model that was evaluated once.
        seed: seed of a trained model that is no family.
        commits: commits of the code that calibrated it.
        not_measured: training metrics that too few calibration runs have, and how many have them.
    """

    suite: str
    kit: str
    student: str
    method: str
    teacher: str
    family: str | None
    seed: int | None
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...] = ()
    commits: tuple[str, ...] = ()
    not_measured: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """``SUITE/KIT/STUDENT/METHOD/TEACHER``, then the recipe's ``@family`` and ``#seed``."""
        recipe = "" if self.family is None else f"@{self.family[:8]}"
        return "/".join(self.labels) + recipe + ("" if self.seed is None else f"#{self.seed}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The suite and kit, and the labels of its models."""
        return (self.suite, self.kit, self.student, self.method, self.teacher)

    @property
    def benchmarks(self) -> list[str]:
        """The names of its benchmarks."""
        return [metric.name for metric in self.metrics if metric.questions]

    @property
    def single(self) -> bool:
        """It was calibrated by one evaluation."""
        return not seeded(self.metrics)

    @property
    def is_family(self) -> bool:
        """It is about all seeds of a recipe."""
        return self.family is not None and self.seed is None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for entries about the same models."""
        return (*self.labels, self.family, self.seed)

    def matches(self, evaluation: Evaluation) -> bool:
        """Whether it is about this evaluation's model, suite and kit."""
        e = evaluation
        labels = (e.suite, e.kit, e.student, e.method, e.teacher)
        return (self.labels, self.family) == (labels, e.family) and self.seed in (None, e.seed)


@dataclass(frozen=True)
class Change:
    """Why the file was written, when, from which code, and which entries changed."""

    date: str
    commit: str | None
    dirty: bool
    reason: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Baseline:
    """The whole file. The bounds follow from the metrics of all entries together."""

    entries: tuple[Entry, ...]
    history: tuple[Change, ...] = ()

    def levels(self) -> dict[str, dict[str, float]]:
        """Return each metric's chance of a false alarm, by entry label."""
        alphas = levels([entry.metrics for entry in self.entries])
        return dict(zip((entry.label for entry in self.entries), alphas, strict=True))

    def bounds(self) -> dict[str, dict[str, Bound]]:
        """Return each metric's bound, by entry label."""
        alphas = self.levels()
        return {
            entry.label: {
                metric.name: bound(metric, entry.metrics, alphas[entry.label][metric.name])
                for metric in entry.metrics
            }
            for entry in self.entries
        }


# ---- the file


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write the file with its bounds and what they are worth, whole or not at all."""
    models = [entry.metrics for entry in baseline.entries]
    alphas, bounds = baseline.levels(), baseline.bounds()
    document = {
        "format": FORMAT,
        "command": COMMAND,
        "alpha": ALPHA,
        "drop": DROP,
        "repetitions": REPETITIONS,
        "false_alarm": round(false_alarms(models), 4),
        "false_alarm_heavy_tails": round(false_alarms(models, heavy=True), 4),
        "history": [dataclasses.asdict(change) for change in baseline.history],
        "entries": [
            _entry_document(entry, alphas[entry.label], bounds[entry.label])
            for entry in baseline.entries
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _entry_document(
    entry: Entry, alphas: Mapping[str, float], bounds: Mapping[str, Bound]
) -> dict[str, Any]:
    document = {"label": entry.label, **dataclasses.asdict(entry)}
    if MEAN in alphas:
        document["power"] = round(power(entry.metrics, alphas), 4)
        if not entry.single:
            document["power_wide"] = round(power(entry.metrics, alphas, wide=True), 4)
    document["metrics"] = metrics = []
    for metric in entry.metrics:
        limit = bounds[metric.name]
        values: dict[str, Any] = {
            "name": metric.name,
            "at_most" if metric.lower_is_better else "at_least": limit.value,
            "finds": limit.finds,
            "values": list(metric.values),
        }
        if metric.questions:
            values |= {"questions": metric.questions, "provenance": dict(metric.provenance)}
        if metric.outcomes:
            values["outcomes_hash"] = metric.outcomes_hash
            values["outcomes"] = _write_outcomes(metric.outcomes)
        metrics.append(values)
    return document


def _write_outcomes(outcomes: Outcomes) -> dict[str, str]:
    """Return the ids of the questions by their score, quoted and on one line: they are many."""
    by_score: dict[str, list[str]] = {}
    for question, score in outcomes.items():
        by_score.setdefault(f"{score:.10g}", []).append(quote(question, safe="/"))
    return {score: " ".join(names) for score, names in sorted(by_score.items())}


class _WrittenOutcomes(Outcomes):
    """Outcomes as the file has them; read at the first look, which an unchanged model spares."""

    def __init__(self, document: Mapping[str, str]) -> None:
        self.document = {float(score): names for score, names in document.items()}

    @cached_property
    def scores(self) -> dict[str, float]:
        """The score of each question by its id."""
        return {
            unquote(name): score for score, names in self.document.items() for name in names.split()
        }

    def __bool__(self) -> bool:
        return bool(self.document)

    def __getitem__(self, question: str) -> float:
        return self.scores[question]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def read_baseline(path: Path) -> Baseline:
    """Read the file; its bounds are computed again from its metrics.

    Raises:
        UserError: it is missing, damaged, empty, or from a newer rilbench.
    """
    place = "" if path == FILE else f" --baseline {shlex.quote(str(path))}"
    command = f'{COMMAND} --reason "..."{place}'
    remedy = f"restore it, or remove it and write a new one: {command}"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; write it from a ledger: {command}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    version = document.get("format") if isinstance(document, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path} was written by a newer rilbench (format {version}, this one knows {FORMAT}); "
            "update rilbench"
        )
    try:
        entries = tuple(_read_entry(values) for values in document["entries"])
        history = tuple(
            Change(**{**values, "entries": tuple(values["entries"])})
            for values in document["history"]
        )
        baseline = Baseline(entries, history)
        baseline.bounds()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} is no baseline ({error!r:.200}); {remedy}") from error
    if not entries:
        raise UserError(f"{path} has no entry; {remedy}")
    return baseline


def _read_entry(document: Mapping[str, Any]) -> Entry:
    # These are there for a reader; they follow from the rest.
    derived = ("label", "power", "power_wide")
    values = {name: value for name, value in document.items() if name not in derived}
    values["metrics"] = tuple(_read_metric(metric) for metric in document["metrics"])
    values |= {
        "seeds": tuple(_of_type(int, seed, "seeds") for seed in values["seeds"]),
        "commits": tuple(_of_type(str, commit, "commits") for commit in values["commits"]),
        "not_measured": _of_type(dict, values.get("not_measured", {}), "not_measured"),
    }
    return Entry(**values)


def _read_metric(document: Mapping[str, Any]) -> Metric:
    numbers = tuple(float(value) for value in document["values"])
    if not all(map(math.isfinite, numbers)):
        raise ValueError("values has a number that is none")
    provenance = _of_type(dict, document.get("provenance", {}), "provenance")
    outcomes = _of_type(dict, document.get("outcomes", {}), "outcomes")
    return Metric(
        _of_type(str, document["name"], "name"),
        numbers,
        _of_type(int, document.get("questions", 0), "questions"),
        {
            part: None if value is None else _of_type(str, value, part)
            for part, value in provenance.items()
        },
        _WrittenOutcomes({k: _of_type(str, names, "outcomes") for k, names in outcomes.items()}),
        _of_type(str, document.get("outcomes_hash", ""), "outcomes_hash"),
    )


def _of_type(kind: type[_T], value: Any, name: str) -> _T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {str(value)[:40]!r}")
    return value


def merged(old: Sequence[Entry], new: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return the entries of both, sorted by label; a new entry replaces an old one of its key.

    A family replaces the entries of its seeds.
    """
    families = {entry.key[:-1] for entry in new if entry.is_family}
    kept = [entry for entry in old if entry.is_family or entry.key[:-1] not in families]
    entries = {entry.key: entry for entry in [*kept, *new]}
    return tuple(sorted(entries.values(), key=lambda entry: entry.label))
