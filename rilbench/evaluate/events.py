"""What an evaluation is doing, for those who show it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """What an evaluation is doing.

    ``stage`` is ``environment``, ``data``, ``prompts``, ``server``, ``answers``, ``scores`` or
    ``done``; ``done`` of ``total`` count responses in the stage ``answers`` and are 0 elsewhere.
    """

    stage: str
    model: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    benchmarks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of each, in the stage ``answers``, the responses so far and all; a second old at most."""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""
