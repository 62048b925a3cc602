"""Scores and differences as the page writes them: rounded as in the table."""

from __future__ import annotations

from rilbench.report.escaping import MINUS, NOTHING
from rilbench.table.rounding import number, signed


def points(value: float | None) -> str:
    """A score with one digit."""
    return NOTHING if value is None else number(value)


def signed_points(value: float | None) -> str:
    """A difference with one digit and its sign."""
    return NOTHING if value is None else signed(value).replace("-", MINUS)
