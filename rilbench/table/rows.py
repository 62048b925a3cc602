"""What a row of the table is."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from typing import Literal

from rilbench.ledger.records import Evaluation

UNTRAINED = "base"
"""The method of a model as it was before training."""


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One model on one suite.

    Attributes:
        source: where the numbers are from.
        student: label.
        method: label; "base" is the untrained model.
        teacher: label.
        suite: "paper" or "nano".
        scores: 0 to 100 for each of :data:`rilbench.columns.COLUMNS`, None where there is none.
        average: plain mean over the suite's columns, None when one is missing.
        difference: in points from the row's own starting point, for each column and "average";
            None where there is nothing to compare, and as a whole without a starting point.
        unlike: columns that both rows have but that were made in different ways (kit, data,
            metric or judge), so that they are not compared.
        evaluation: what was measured; None for a paper row.
    """

    source: Literal["paper", "measured"]
    student: str
    method: str
    teacher: str
    suite: str
    scores: Mapping[str, float | None]
    average: float | None
    difference: Mapping[str, float | None] | None = None
    unlike: tuple[str, ...] = ()
    evaluation: Evaluation | None = None


def average(scores: Mapping[str, float | None], columns: Iterable[str]) -> float | None:
    """Return the plain mean over ``columns``; None when one is missing or there is none."""
    values = [scores.get(column) for column in columns]
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present and len(present) == len(values) else None
