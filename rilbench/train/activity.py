"""What a run does at this moment: ``now.json``, a sign of life inside a step.

A step of a large student takes minutes, and only its end has a line in ``metrics.jsonl``.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rilbench.paths import whole_file

FILE = "now.json"
"""File of a run's folder; it is replaced about every second while something changes."""

PARTS = {
    "gen": "sampling",
    "discriminator": "discriminator",
    "old_log_prob": "old policy",
    "ref": "reference",
    "update_actor": "policy update",
    "update_weights": "weights to the sampler",
    "save_checkpoint": "saving",
    "testing": "dev split",
}
"""verl's names of a step's parts, in their order, and ours."""

_SECONDS_BETWEEN = 1.0


@dataclass(frozen=True)
class Activity:
    """What the trainer does."""

    part: str
    """One of `PARTS`, or words for the user."""
    step: int
    """0 before the first."""
    since: float
    """When it began, in seconds since the epoch."""
    done: int = 0
    of: int = 0
    """Responses of the part; 0: it has none to count."""


class ActivityFile:
    """Writes ``now.json`` of a run; one process does."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FILE
        self.now = Activity("", 0, 0.0)
        self._written = 0.0

    def begin(self, part: str, step: int = 0, of: int = 0) -> None:
        """Another part begins, with so many responses to wait for."""
        self._write(Activity(part, step, time.time(), 0, of))

    def reached(self, done: int) -> None:
        """So many responses of the part have come; written at most once a second."""
        if done != self.now.done and time.monotonic() - self._written >= _SECONDS_BETWEEN:
            self._write(Activity(self.now.part, self.now.step, self.now.since, done, self.now.of))

    def _write(self, now: Activity) -> None:
        self.now, self._written = now, time.monotonic()
        with whole_file(self.path) as part:
            part.write_text(json.dumps(asdict(now)) + "\n", encoding="utf-8")


def read_activity(run_dir: Path) -> Activity | None:
    """What a run did last; None before its trainer starts."""
    try:
        return Activity(**json.loads((run_dir / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
