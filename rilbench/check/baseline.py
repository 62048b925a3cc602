"""The baseline file: for each kind of model its cells, their bounds, and why they were written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.check.metrics import MEAN, Cell
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

FORMAT = 1
"""Raised when an older rilbench could not read the file."""
FILE = Path("results/baseline.json")
COMMAND = "rilbench check --update"


@dataclass(frozen=True)
class Entry:
    """One kind of model.

    With seeds it is a family: any model that was trained by its recipe, whatever the seed. Without,
    it is the model of these labels and, if it was trained, of this recipe and seed.

    Attributes:
        seeds: of the calibration; empty for a model that was evaluated once.
        seed: of a trained model that is no family.
        commits: of the code that calibrated it.
        not_measured: cells of the training that too few runs of the calibration have, and in how
            many of them.
    """

    suite: str
    kit: str
    student: str
    method: str
    teacher: str
    family: str | None
    seed: int | None
    cells: tuple[Cell, ...]
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
        """Of its models, and where they were evaluated."""
        return (self.suite, self.kit, self.student, self.method, self.teacher)

    @property
    def columns(self) -> list[str]:
        """Its benchmarks."""
        return [cell.name for cell in self.cells if cell.questions]

    @property
    def single(self) -> bool:
        """Calibrated by one evaluation."""
        return not seeded(self.cells)

    @property
    def is_family(self) -> bool:
        """It is about all seeds of a recipe."""
        return self.family is not None and self.seed is None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for entries about the same models."""
        return (*self.labels, self.family, self.seed)

    def matches(self, evaluation: Evaluation, *, anywhere: bool = False) -> bool:
        """Whether it is about this model; ``anywhere``: evaluated on any suite by any kit."""
        model = (evaluation.student, evaluation.method, evaluation.teacher)
        where = anywhere or self.labels[:2] == (evaluation.suite, evaluation.kit)
        seed = self.seed is None or self.seed == evaluation.seed
        return where and self.labels[2:] == model and self.family == evaluation.family and seed


@dataclass(frozen=True)
class Reason:
    """Why the file was written, when, from which code, and which entries changed by it."""

    date: str
    commit: str | None
    dirty: bool
    reason: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Baseline:
    """The whole file. The bounds follow from the cells of all entries together."""

    entries: tuple[Entry, ...]
    history: tuple[Reason, ...] = ()

    def levels(self) -> list[dict[str, float]]:
        """Each cell's chance of a false alarm, for each entry."""
        return levels([entry.cells for entry in self.entries])

    def bounds(self) -> list[dict[str, Bound]]:
        """Each cell's bound, for each entry."""
        return [
            {cell.name: bound(cell, entry.cells, alphas[cell.name]) for cell in entry.cells}
            for entry, alphas in zip(self.entries, self.levels(), strict=True)
        ]


# ---- the file


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write it with its bounds and what they are worth, whole or not at all."""
    models = [entry.cells for entry in baseline.entries]
    found = {
        "format": FORMAT,
        "command": COMMAND,
        "alpha": ALPHA,
        "drop": DROP,
        "repetitions": REPETITIONS,
        "false_alarm": round(false_alarms(models), 4),
        "false_alarm_heavy_tails": round(false_alarms(models, heavy=True), 4),
        "history": [dataclasses.asdict(each) for each in baseline.history],
        "entries": [
            _entry(entry, alphas, bounds)
            for entry, alphas, bounds in zip(
                baseline.entries, baseline.levels(), baseline.bounds(), strict=True
            )
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _entry(
    entry: Entry, alphas: Mapping[str, float], bounds: Mapping[str, Bound]
) -> dict[str, Any]:
    found = dataclasses.asdict(entry) | {"label": entry.label}
    if any(cell.name == MEAN for cell in entry.cells):
        found["power"] = round(power(entry.cells, alphas), 4)
        if not entry.single:
            found["power_wide"] = round(power(entry.cells, alphas, wide=True), 4)
    found["cells"] = [_cell(cell, bounds[cell.name]) for cell in entry.cells]
    return {"label": found.pop("label"), **found}


def _cell(cell: Cell, limit: Bound) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": cell.name,
        "at_most" if cell.lower_is_better else "at_least": limit.value,
        "finds": limit.finds,
        "values": list(cell.values),
    }
    if cell.questions:
        found |= {"questions": cell.questions, "story": dict(cell.story)}
    return found


def read_baseline(path: Path) -> Baseline:
    """Read the file back; its bounds are computed anew from its cells.

    Raises:
        UserError: it is not there, of a newer rilbench, or no such file.
    """
    remedy = f'restore it, or write it anew: {COMMAND} --reason "..."'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f'{path} is not there; write it from a ledger: {COMMAND} --reason "..."'
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from error
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path} was written by a newer rilbench (format {version}, this one knows {FORMAT}); "
            "update rilbench"
        )
    try:
        entries = tuple(_read_entry(each) for each in found["entries"])
        history = tuple(
            Reason(**{**each, "entries": tuple(each["entries"])}) for each in found["history"]
        )
        baseline = Baseline(entries, history)
        baseline.bounds()
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path} is no baseline ({error!r}); {remedy}") from error
    if not entries:
        raise UserError(f"{path} has no entry; {remedy}")
    return baseline


_TUPLES = ("seeds", "commits")
_SHOWN = ("label", "power", "power_wide")
"""For a reader; they follow from the rest."""


def _read_entry(found: Mapping[str, Any]) -> Entry:
    values = {name: value for name, value in found.items() if name not in _SHOWN}
    values |= {name: tuple(values[name]) for name in _TUPLES}
    values["cells"] = tuple(
        Cell(
            each["name"],
            tuple(float(value) for value in each["values"]),
            each.get("questions", 0),
            each.get("story", {}),
        )
        for each in found["cells"]
    )
    return Entry(**values)


def merged(old: Sequence[Entry], new: Sequence[Entry]) -> tuple[Entry, ...]:
    """The old entries, those that ``new`` has replaced, and the others of ``new``; by label.

    A family replaces the entries of its seeds.
    """
    families = {entry.key[:-1] for entry in new if entry.is_family}
    kept = [entry for entry in old if entry.is_family or entry.key[:-1] not in families]
    entries = {entry.key: entry for entry in [*kept, *new]}
    return tuple(sorted(entries.values(), key=lambda entry: entry.label))
