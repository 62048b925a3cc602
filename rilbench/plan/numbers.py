"""How the plan's numbers are written."""

from __future__ import annotations


def short(number: float) -> str:
    """A number with three digits that count: 0.756, 65.3, 2,310, and never 2.31e+03."""
    return f"{number:,.3g}" if number < 999.5 else f"{number:,.0f}"
