"""A step whose loss, reward or gradient is not finite stops the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

STOPPED = "stopped.txt"
"""File in a run's folder with the one line that says why the trainer stopped itself."""


class NotFiniteError(RuntimeError):
    """A number of a step is NaN or infinite; the message is one line for the user."""


def check_finite(run_dir: Path, where: str, numbers: Mapping[str, float]) -> None:
    """Stop where one of the numbers is not finite.

    Args:
        run_dir: the run's folder; the reason is left there for the process that waits.
        where: the step, as the user knows it, such as ``step 12``.
        numbers: by the name under which ``metrics.jsonl`` has them.

    Raises:
        NotFiniteError: naming the step and the numbers.
    """
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    if not wrong:
        return
    reason = f"{where}: {', '.join(wrong)} not finite"
    leave_reason(run_dir, reason)
    raise NotFiniteError(reason)


def leave_reason(run_dir: Path, reason: str) -> None:
    """Leave why the trainer stops itself; with a ``;`` in it, it names the remedy too."""
    (run_dir / STOPPED).write_text(reason + "\n", encoding="utf-8")
