"""Which scores of a row or column have another provenance than the rest, and in which part."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from rilbench.table.types import Origin

_Name = TypeVar("_Name", bound=Hashable)

Parts = dict[str, str | None]
"""A score's provenance, part by part; None for a part that does not apply to it."""

_WHERE = frozenset({"server"})
"""Generation settings that do not change what the model is sent."""


def within_row(origin: Origin) -> Parts:
    """Return what the scores of one row should share, whatever their benchmarks."""
    settings, score = origin.evaluation.settings, origin.score
    generation = settings.get("generation", {})
    generation = {name: value for name, value in generation.items() if name not in _WHERE}
    return {
        "kit version": score.kit_version,
        "generation": json.dumps(generation, sort_keys=True),
        "prompts": str(settings.get("prompts", "")),
        "sample": "all questions" if score.sampled is None else f"{score.sampled} questions",
        "judge": score.judge,
    }


def within_column(origin: Origin) -> Parts:
    """Return what the scores of one column should share, whatever their models."""
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
    """Return for each name the parts in which it differs from the most frequent value.

    Of equally frequent values, the first counts as the usual one.
    """
    counts: dict[str, Counter[str]] = {}
    for several in parts.values():
        for provenance in several:
            for part, value in provenance.items():
                if value is not None:
                    counts.setdefault(part, Counter())[value] += 1
    usual = {part: values.most_common(1)[0][0] for part, values in counts.items()}
    return {
        name: tuple(
            part
            for part in usual
            if any(provenance.get(part) not in (None, usual[part]) for provenance in several)
        )
        for name, several in parts.items()
    }
