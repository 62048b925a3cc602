"""What a run tells its user, kept in its folder, so that another process can show it as well."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rilbench.config import Recipe
from rilbench.train.pipeline.stage import Progress

FILE = "progress.jsonl"
"""File of a run's folder: a line when a process begins, for each event of a stage, each note."""

_SECONDS_BETWEEN = 3.0
_COUNTS = 2000
"""Of one model's responses: so far apart at least, and about so many in all."""


def planned_stages(recipe: Recipe) -> list[str]:
    """The stages of a run, in their order."""
    method = recipe.method_spec
    pretrains = method.uses_discriminator and recipe.discriminator.pretrain_steps > 0
    collects = recipe.uses_saved_responses or pretrains
    stages = (  # the method may be called as a stage: sft
        ("collect", collects),
        ("sft", recipe.sft.steps > 0),
        ("discriminator", pretrains),
        (recipe.method, method.is_rl),
        ("export", True),
    )
    return [name for name, is_planned in stages if is_planned]


class RecordedProgress:
    """Passes every event on, and appends those that have no other record to `FILE`."""

    def __init__(self, progress: Progress, folder: Path, stages: list[str]) -> None:
        self.progress, self.path = progress, folder / FILE
        self._lock = threading.Lock()
        self._counted: dict[str, tuple[float, int]] = {}
        self._write({"begin": stages, "host": socket.gethostname()})

    def stage(self, name: str, state: str) -> None:
        """A stage starts, ends, or is found done."""
        self._write({"stage": name, "state": state})
        self.progress.stage(name, state)

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far from one model; now and then kept."""
        now = time.monotonic()
        when, before = self._counted.get(model, (0.0, -total))
        is_due = now - when >= _SECONDS_BETWEEN and done - before >= total / _COUNTS
        if done == total or is_due:
            self._counted[model] = (now, done)
            self._write({"model": model, "done": done, "total": total})
        self.progress.answers(model, done, total)

    def note(self, text: str) -> None:
        """A note for the user."""
        self._write({"note": text})
        self.progress.note(text)

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """A line that has a file of its own."""
        self.progress.line(kind, values)

    def _write(self, values: Mapping[str, Any]) -> None:
        line = json.dumps({"time": round(time.time(), 1), **values}, ensure_ascii=False)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
