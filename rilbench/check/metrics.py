"""What is compared: the cells of one kind of model, and what an evaluation says of each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rilbench.ledger.records import Evaluation, Run, Score

MEAN = "mean"
"""Of all benchmarks that the evaluation has."""
ACCURACY, ANSWER = "discriminator_accuracy", "answer_reward_student"
"""Mean over all steps; mean over the last third of the steps."""
TIME, MEMORY = "step_time", "memory"
"""CPU seconds of a step over those of a fixed piece of work, which two machines share; GB."""
TRAINING = (ACCURACY, ANSWER, TIME, MEMORY)
"""What a training run says beside the scores."""
LOWER_IS_BETTER = frozenset({TIME, MEMORY})
STORY = ("kit", "kit_version", "dataset", "metric", "judge", "data_sha256", "asked")
"""The names of `Score.story`'s parts."""


@dataclass(frozen=True)
class Cell:
    """One figure of the calibration.

    Attributes:
        name: the benchmark's column, `MEAN`, or one of `TRAINING`.
        values: one for each seed; one alone for a model without seeds.
        questions: of the benchmark, 0 for others.
        story: how the score was made (`STORY`); empty for others.
    """

    name: str
    values: tuple[float, ...]
    questions: int = 0
    story: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def lower_is_better(self) -> bool:
        """Its bound is an upper one."""
        return self.name in LOWER_IS_BETTER

    @property
    def usual(self) -> float:
        """The mean of the calibration."""
        return statistics.fmean(self.values)


@dataclass(frozen=True)
class Measured:
    """An evaluation with the training run behind its model, as far as the ledger has it."""

    evaluation: Evaluation
    run: Run | None = None

    @property
    def scores(self) -> dict[str, Score]:
        """By benchmark."""
        return {score.benchmark: score for score in self.evaluation.scores}

    def lacks(self, columns: Iterable[str]) -> str:
        """Of benchmarks: which has no whole score, and why; empty where all have."""
        for name in columns:
            score = self.scores.get(name)
            if score is None or score.value is None:
                return f"{name} has no score"
            if score.missing:
                return f"{name} lacks the verdicts of {score.missing} of {score.questions}"
        return ""

    def value(self, cell: str, columns: Sequence[str]) -> float | None:
        """Of a cell of a model whose benchmarks are ``columns``; None where it was not measured."""
        if cell == MEAN:
            found = [self.value(name, columns) for name in columns]
            known = [value for value in found if value is not None]
            return statistics.fmean(known) if known and len(known) == len(found) else None
        if cell in TRAINING:
            return None if self.run is None else training_figures(self.run).get(cell)
        return None if self.lacks([cell]) else self.scores[cell].value


def story(score: Score) -> dict[str, str | None]:
    """A score's story by the names of its parts."""
    return dict(zip(STORY, score.story, strict=True))


def training_figures(run: Run) -> dict[str, float]:
    """The cells of `TRAINING` that a run measured."""
    found: dict[str, float] = {}
    accuracy, answer = (_numbers(run, name) for name in (ACCURACY, ANSWER))
    if accuracy:
        found[ACCURACY] = statistics.fmean(accuracy)
    if answer:
        found[ANSWER] = statistics.fmean(answer[-math.ceil(len(answer) / 3) :])
    step, yardstick = (run.figures.get(f"{name}_seconds") for name in ("step_cpu", "yardstick"))
    if step and yardstick:
        found[TIME] = step / yardstick
    if run.figures.get("memory_gb"):
        found[MEMORY] = float(run.figures["memory_gb"])
    return found


def _numbers(run: Run, name: str) -> list[float]:
    return [float(value) for value in run.curves.get(name, ()) if value is not None]
