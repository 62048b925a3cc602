"""The result of one check, a line of the doctor's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rilbench.errors import UserError

State = Literal["ok", "missing", "wrong"]
"""``missing``: absent, but not always needed; ``wrong``: it would stop what was asked for."""


@dataclass(frozen=True)
class CheckResult:
    """What was checked, its state, what was found, and the remedy."""

    name: str
    state: State
    found: str
    remedy: str = ""


def attempt(name: str, check: Callable[[], str]) -> CheckResult:
    """Return ``ok`` with the check's text, or ``wrong`` with its error and the error's remedy."""
    try:
        return CheckResult(name, "ok", check())
    except UserError as error:
        found, _, remedy = str(error).partition("; ")
        return CheckResult(name, "wrong", found, remedy)
