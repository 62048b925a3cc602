"""Which cells were made otherwise than the others of their row or column, and in what."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from rilbench.table.types import Origin

_Name = TypeVar("_Name", bound=Hashable)

Parts = dict[str, str | None]
"""How a score was made, part by part; None where the part does not apply to it."""

_WHERE = frozenset({"server"})
"""Of how answers are generated, what does not change what is asked."""


def within_row(origin: Origin) -> Parts:
    """What the scores of one row should share, whatever their benchmarks."""
    settings, score = origin.evaluation.settings, origin.score
    generation = settings.get("generation", {})
    how = {name: value for name, value in generation.items() if name not in _WHERE}
    return {
        "kit version": score.kit_version,
        "generation": json.dumps(how, sort_keys=True),
        "prompts": str(settings.get("prompts", "")),
        "sample": "all questions" if score.sampled is None else f"{score.sampled} questions",
        "judge": score.judge,
    }


def within_column(origin: Origin) -> Parts:
    """What the scores of one column should share, whatever their models."""
    score = origin.score
    return {
        "kit version": score.kit_version,
        "data set": score.dataset,
        "metric": score.metric,
        "judge": score.judge or "none",
        "data": score.data_sha256[:12],
        "prompts or generation": score.asked,
        "sample": "all questions" if score.sampled is None else f"{score.sampled} questions",
    }


def odd_ones(parts: Mapping[_Name, Sequence[Parts]]) -> dict[_Name, tuple[str, ...]]:
    """Say of each name in what it differs from most of the others; empty where in nothing.

    Of values that are equally frequent the first counts as the usual one.
    """
    usual: dict[str, Counter[str]] = {}
    for several in parts.values():
        for each in several:
            for part, value in each.items():
                if value is not None:
                    usual.setdefault(part, Counter())[value] += 1
    common = {part: counts.most_common(1)[0][0] for part, counts in usual.items()}
    return {
        name: tuple(
            part
            for part in common
            if any(each.get(part) not in (None, common[part]) for each in several)
        )
        for name, several in parts.items()
    }
