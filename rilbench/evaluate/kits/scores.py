"""What a kit says of a set of answers, in the same form for every kit."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from rilbench.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """One question as the kit scored it: 0-1, or None where the judge gave no verdict."""

    question_id: str
    value: float | None
    extracted: str | None
    judged: bool = False
    """A judge took part."""
    stratum: str = ""
    """Where the kit takes the mean of means: the group that the question counts in."""


@dataclass(frozen=True)
class KitScore:
    """A score on the 0-100 scale, over the questions that have an outcome."""

    value: float | None
    outcomes: tuple[Outcome, ...]
    missing: int
    """Questions without a verdict; the kit would count them as wrong."""
    seconds: float

    def without(self, lost: AbstractSet[str]) -> KitScore:
        """The score when these questions have no verdict."""
        if not lost:
            return self
        outcomes = tuple(
            replace(each, value=None) if each.question_id in lost else each
            for each in self.outcomes
        )
        return summed_up(outcomes, self.seconds)


def summed_up(outcomes: Sequence[Outcome], seconds: float) -> KitScore:
    """The score of the outcomes that are known: their mean, or the mean of their groups' means."""
    strata: dict[str, list[float]] = {}
    for each in outcomes:
        if each.value is not None:
            strata.setdefault(each.stratum, []).append(each.value)
    means = [sum(values) / len(values) for values in strata.values()]
    value = 100.0 * sum(means) / len(means) if means else None
    missing = sum(each.value is None for each in outcomes)
    return KitScore(value, tuple(outcomes), missing, seconds)


def checked(name: str, score: KitScore, total: float, tolerance: float = 1e-6) -> KitScore:
    """The score with the kit's own total, never one that its own questions contradict.

    Args:
        name: of the dataset.
        score: of the kit's outcomes, none of which is missing.
        total: the kit's, 0-100.
        tolerance: what the kit's rounding allows.

    Raises:
        UserError: the two differ by more.
    """
    if score.value is None or abs(total - score.value) > tolerance:
        raise UserError(
            f"{name}: the kit's total {total} is not the mean {score.value} of its own questions; "
            "evaluate again in another work folder"
        )
    return replace(score, value=total)
