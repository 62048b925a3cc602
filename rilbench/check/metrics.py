"""The metrics of one kind of model that are compared: benchmarks, their mean, and its training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rilbench.ledger.records import Evaluation, Run, Score

MEAN = "mean"
"""The mean of all benchmarks in the evaluation."""
ACCURACY, ANSWER = "discriminator_accuracy", "answer_reward_student"
"""Mean over all steps; mean over the last third of the steps."""
TIME, MEMORY = "step_time", "memory"
"""A step's CPU seconds over those of a fixed piece of work, so that machines compare; GB."""
TRAINING = (ACCURACY, ANSWER, TIME, MEMORY)
"""The metrics of a training run."""
LOWER_IS_BETTER = frozenset({TIME, MEMORY})
PROVENANCE = ("kit", "kit_version", "dataset", "metric", "judge", "data_sha256", "asked")
"""Names for the values of a score's provenance, in the ledger's order."""


Outcomes = Mapping[str, float]
"""Score, 0 to 1, of each question of a benchmark by its id."""


@dataclass(frozen=True)
class Metric:
    """One metric of the calibration.

    Attributes:
        name: a benchmark, `MEAN`, or one of `TRAINING`.
        values: one for each seed, or a single one for a model without seeds.
        questions: number of the benchmark's questions; 0 for other metrics.
        provenance: how a benchmark's score was made (`PROVENANCE`); empty for other metrics.
        outcomes: score of each question by its id, of a model without seeds whose responses the
            ledger has; else empty.
        outcomes_hash: of `rilbench.ledger.records.outcomes_hash`; empty without outcomes.
    """

    name: str
    values: tuple[float, ...]
    questions: int = 0
    provenance: Mapping[str, str | None] = field(default_factory=dict)
    outcomes: Outcomes = field(default_factory=dict)
    outcomes_hash: str = ""

    @property
    def lower_is_better(self) -> bool:
        """The bound is an upper one."""
        return self.name in LOWER_IS_BETTER

    @property
    def usual(self) -> float:
        """The mean of the calibration."""
        return statistics.fmean(self.values)


@dataclass(frozen=True)
class Measured:
    """An evaluation, and the training run of its model if the ledger has it.

    ``outcomes`` is by benchmark, and only filled where it is needed.
    """

    evaluation: Evaluation
    run: Run | None = None
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, Score]:
        """The scores by benchmark."""
        return {score.benchmark: score for score in self.evaluation.scores}

    def missing_score(self, benchmarks: Iterable[str]) -> str:
        """Say which of the benchmarks lacks a complete score, and why; empty if none does."""
        for name in benchmarks:
            score = self.scores.get(name)
            if score is None or score.value is None:
                return f"{name} has no score"
            if score.missing:
                return f"{name} lacks the verdicts of {score.missing} of {score.questions}"
        return ""

    def value(self, name: str, benchmarks: Sequence[str]) -> float | None:
        """Return the value of a metric; None if it was not measured.

        Args:
            name: the metric.
            benchmarks: the benchmarks that the mean is over.
        """
        if name == MEAN:
            values = [self.value(benchmark, benchmarks) for benchmark in benchmarks]
            known = [value for value in values if value is not None]
            return statistics.fmean(known) if known and len(known) == len(values) else None
        if name in TRAINING:
            return None if self.run is None else training_metrics(self.run).get(name)
        return None if self.missing_score([name]) else self.scores[name].value


def provenance(score: Score) -> dict[str, str | None]:
    """Return a score's provenance by the names in `PROVENANCE`."""
    return dict(zip(PROVENANCE, score.provenance, strict=True))


def training_metrics(run: Run) -> dict[str, float]:
    """Return those metrics of `TRAINING` that a run measured."""

    def curve(name: str) -> list[float]:
        return [float(value) for value in run.curves.get(name, ()) if value is not None]

    metrics: dict[str, float] = {}
    if accuracy := curve(ACCURACY):
        metrics[ACCURACY] = statistics.fmean(accuracy)
    if answer := curve(ANSWER):
        metrics[ANSWER] = statistics.fmean(answer[-math.ceil(len(answer) / 3) :])
    step, yardstick = run.metrics.get("step_cpu_seconds"), run.metrics.get("yardstick_seconds")
    if step and yardstick:
        metrics[TIME] = step / yardstick
    if run.metrics.get("memory_gb"):
        metrics[MEMORY] = float(run.metrics["memory_gb"])
    return metrics
