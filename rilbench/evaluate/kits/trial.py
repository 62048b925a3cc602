"""What a kit's total of a data set is, found out from right and wrong answers before any is asked.

Of the paper's benchmarks it is declared. Of any other data set of a kit it may be the mean of its
questions, on one of two scales, or a total of another kind, such as an F1 or a sum of categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.benchmark import Dataset
from rilbench.evaluate.kits.scores import KitScore, checked

_SCALES = (1, 100)
_ROUNDING = 0.051  # points: a kit may round a total to one digit


@dataclass(frozen=True)
class Trial:
    """What the kit's total of a data set is."""

    scale: float
    """Its value where everything is right."""
    is_mean: bool
    """Whether it is the mean of its questions' outcomes."""


def read_trial(
    dataset: Dataset,
    results: Sequence[Mapping[str, Any]],
    total: Callable[[Dataset, Mapping[str, Any]], float | None],
) -> Trial | None:
    """Return what is known after a trial; None where the kit takes none of the answers for right.

    Args:
        dataset: that was tried.
        results: of right answers, of either half of them, and of one answer to all questions; see
            ``tried`` in `worker_common`.
        total: returns the kit's total of a result, as `Adapter.total`.

    Raises:
        UserError: the kit's result does not hold the total, or it is no score.
    """
    totals = [0.0 if (found := total(dataset, r["result"])) is None else found for r in results]
    means = [100 * each["mean"] for each in results]
    if not any(means):
        return None
    for scale in (dataset.scale,) if dataset.scale else _SCALES:
        points = totals if dataset.scale else [100 * each / scale for each in totals]
        close = max(dataset.rounding, _ROUNDING)
        if all(abs(one - mean) <= close for one, mean in zip(points, means, strict=True)):
            return Trial(scale, is_mean=True)
    best, *halves = totals[:3]  # The last has one answer to all, which may be right for all.
    if best <= max(halves) or (not dataset.scale and means[0] < 100):
        raise UserError(
            f"{dataset.name}: the kit's {dataset.metric} is no mean of its questions, and of right "
            f"answers it is {best:g}, of half of them {halves[0]:g} and {halves[1]:g}, which is no "
            "score on a known scale; choose another metric of it in a TOML file (see "
            "docs/extending.md)"
        )
    return Trial(dataset.scale or best, is_mean=False)


def with_total(
    dataset: Dataset, score: KitScore, total: float | None, trial: Trial | None
) -> KitScore:
    """Return the score with the kit's own total.

    Args:
        dataset: that was scored.
        score: the mean of its questions.
        total: as `Adapter.total` returns it; None where there is none.
        trial: what is known of it; None of a declared data set.

    Raises:
        UserError: it is declared or known to be the mean of its questions, and is not.
    """
    if trial is not None and not trial.is_mean:
        if total is not None and not dataset.scale:
            total *= 100 / trial.scale
        return replace(score, value=total, is_total=True)
    if total is None:
        return score
    if not dataset.scale:
        scales = _SCALES if trial is None else (trial.scale,)
        total = _on_known_scale(dataset, score, total, scales)
    return checked(dataset.name, score, total, dataset.rounding)


def _on_known_scale(
    dataset: Dataset, score: KitScore, total: float, scales: Sequence[float]
) -> float:
    """Return the kit's total on the 0-100 scale, of which it is not known whether it ends at 1."""
    for scale in scales:
        value = total * 100 / scale
        if score.value is not None and abs(value - score.value) <= dataset.rounding:
            return value
    raise UserError(
        f"{dataset.name}: the kit's {dataset.metric} {total:g} is no mean of its questions' "
        f"outcomes, which is {score.value}; choose another metric of it in a TOML file (see "
        "docs/extending.md). The answers are kept"
    )
