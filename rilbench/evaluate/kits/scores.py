"""A kit's scores, in the same form for every kit."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from rilbench.errors import UserError


@dataclass(frozen=True)
class Choice:
    """A response in which the kit's rules had to find an option's letter."""

    question_id: str
    """Of the question, or of one rotation of a circular one."""
    options: str
    """The letters of its options."""
    gold: str
    read: str
    """The letter that the rules read; empty where they read none."""


@dataclass(frozen=True)
class Outcome:
    """One question as the kit scored it: 0-1, or None where the judge gave no verdict."""

    question_id: str
    value: float | None
    extracted: str | None
    judged: bool = False
    """Whether a judge took part."""
    stratum: str = ""
    """The question's group, where the kit takes the mean of the groups' means."""
    unread: tuple[Choice, ...] = ()
    """Its responses, where it counts as wrong only because the rules read no letter in one."""


@dataclass(frozen=True)
class KitScore:
    """A score on the 0-100 scale, over the questions that have an outcome."""

    value: float | None
    outcomes: tuple[Outcome, ...]
    missing: int
    """Questions without a verdict; the kit would count them as wrong."""
    seconds: float
    is_total: bool = False
    """Whether it is a total of the kit's that is no mean of its questions, such as an F1."""

    def with_value(self, value: float | None, questions: AbstractSet[str]) -> KitScore:
        """Return the score when these questions have another outcome; None: no verdict."""
        if not questions:
            return self
        outcomes = tuple(
            replace(outcome, value=value, unread=())
            if outcome.question_id in questions
            else outcome
            for outcome in self.outcomes
        )
        changed = summed_up(outcomes, self.seconds)
        if not self.is_total:
            return changed
        # Silence is wrong to the kit too. Without a verdict on what it counted, there is no total.
        kept = self.value if changed.missing == self.missing else None
        return replace(changed, value=kept, is_total=True)

    def with_unscored(self, questions: AbstractSet[str]) -> KitScore:
        """Return the score with questions that the kit was not given, which have no verdict."""
        added = sorted(questions - {outcome.question_id for outcome in self.outcomes})
        outcomes = (*self.outcomes, *(Outcome(name, None, None) for name in added))
        return replace(self, outcomes=outcomes, missing=self.missing + len(added))


def summed_up(outcomes: Sequence[Outcome], seconds: float) -> KitScore:
    """Return the score of the known outcomes: their mean, or the mean of their groups' means."""
    strata: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.value is not None:
            strata.setdefault(outcome.stratum, []).append(outcome.value)
    means = [sum(values) / len(values) for values in strata.values()]
    value = 100.0 * sum(means) / len(means) if means else None
    missing = sum(outcome.value is None for outcome in outcomes)
    return KitScore(value, tuple(outcomes), missing, seconds)


def checked(name: str, score: KitScore, total: float, tolerance: float = 1e-6) -> KitScore:
    """Return the score with the kit's own total.

    Args:
        name: name of the dataset.
        score: mean of the kit's outcomes, none of which is missing.
        total: the kit's total, 0-100.
        tolerance: largest difference that the kit's rounding allows.

    Raises:
        UserError: total and outcomes differ by more.
    """
    if score.value is None or abs(total - score.value) > tolerance:
        raise UserError(
            f"{name}: the kit's total {total} is not the mean {score.value} of its own questions; "
            "evaluate again in another work folder"
        )
    return replace(score, value=total)
