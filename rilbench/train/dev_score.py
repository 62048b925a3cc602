"""The score on the dev split, from what verl's validation gathers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Question = tuple[str, str]
"""A source and the uid that verl gave the question."""


class DevResponses(NamedTuple):
    """Responses to the dev split, as verl's ``_val_metrics_update`` takes them."""

    sources: list[str]
    uids: list[str]
    infos: dict[str, list[Any]]
    expected: dict[Question, int]
    """How many responses each question should have; verl counts one that lacks as wrong."""


def judged_only(
    sources: Sequence[str],
    uids: Sequence[str],
    infos: Mapping[str, Sequence[Any]],
    expected: Mapping[Question, int],
) -> DevResponses:
    """Leave out the responses that the judge gave no verdict on: they are not wrong, but unknown.

    A question that failed keeps its place, and counts as wrong.

    Args:
        sources, uids: of each response.
        infos: values by name; ``acc`` is NaN without a verdict.
        expected: as `DevResponses.expected`.
    """
    judged = [i for i, verdict in enumerate(infos["acc"]) if not math.isnan(verdict)]
    asked = set(zip(sources, uids, strict=True))
    unknown = asked - {(sources[i], uids[i]) for i in judged}
    return DevResponses(
        [sources[i] for i in judged],
        [uids[i] for i in judged],
        {name: [values[i] for i in judged] for name, values in infos.items()},
        {question: count for question, count in expected.items() if question not in unknown},
    )


def dev_accuracy(metrics: Mapping[str, Any]) -> float | None:
    """The mean over the dev split's sources, of verl's metrics; None where they have no score."""
    found = [v for k, v in metrics.items() if k.startswith("val-core/") and "/mean@" in k]
    return float(sum(found) / len(found)) if found else None
