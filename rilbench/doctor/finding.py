"""One line of the doctor's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rilbench.errors import UserError

State = Literal["ok", "missing", "wrong"]
"""``missing``: not there, and not needed by everybody; ``wrong``: it would stop what was asked."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    remedy: str = ""


def tried(name: str, check: Callable[[], str]) -> Finding:
    """``ok`` with what the check returns; ``wrong`` with the error it raises and its remedy."""
    try:
        return Finding(name, "ok", check())
    except UserError as error:
        found, _, remedy = str(error).partition("; ")
        return Finding(name, "wrong", found, remedy)
