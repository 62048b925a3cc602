"""How scores and differences are written, everywhere: with one digit."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

NONE = "-"
"""What stands for no number."""


def number(value: float | None) -> str:
    """Return a number with one digit, a tie to the even one; "-" for none."""
    if value is None:
        return NONE
    # As written: in binary, 69.35 is a little less.
    return str(Decimal(f"{value:.10g}").quantize(Decimal("0.1"), ROUND_HALF_EVEN))


def signed(value: float | None) -> str:
    """Return a number with one digit and its sign; "-" for none."""
    if value is None:
        return NONE
    rounded = number(abs(value))
    return rounded if rounded == "0.0" else ("-" if value < 0 else "+") + rounded
