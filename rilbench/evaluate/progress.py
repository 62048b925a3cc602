"""Progress of an evaluation: a bar for each stage of each model, or a line a minute when piped."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import cast

from rich.progress import TextColumn, TimeElapsedColumn

from rilbench.evaluate.events import Progress as Event
from rilbench.progress import BarDisplay, Pace

_LINE_EVERY = 60.0  # seconds
_FINISHED = "finished"
_WORDS = {
    "environment": "making the kit's environment (once)",
    "data": "getting the data",
    "prompts": "the kit writes the prompts",
    "server": "starting the model's server",
    "answers": "answers",
    "scores": "the kit scores the answers",
    "done": "done",
}


class EvaluationProgress(BarDisplay):
    """Shows the events of `evaluate_many`.

    Args:
        clock: seconds that never run backwards.
        now: the time of day.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        super().__init__(TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
        self._clock, self._now = clock, now
        self._said, self._said_at = "", 0.0
        self._paces: dict[tuple[str, str], Pace] = {}

    def report(self, event: Event) -> None:
        """Show one event; piped, a line at each stage, and one a minute while responses come."""
        text = " ".join(filter(None, (event.model, _WORDS.get(event.stage, event.stage))))
        if event.note:
            text = f"{text}: {event.note}"
        detail = self._detail(event) if event.total else ""
        if self.console.is_terminal:
            self._end_before(event)
            if event.stage != "done":
                key = (event.model, event.stage)
                self.update(key, text, event.done, event.total or 1, detail)
            return
        since = self._clock() - self._said_at
        is_last = 0 < event.total == event.done
        if text != self._said or since >= _LINE_EVERY or is_last:
            self._said, self._said_at = text, self._clock()
            self.say(f"{self._now():%H:%M:%S} {text}" + (f" {detail}" if detail else ""))

    def _detail(self, event: Event) -> str:
        """Return count, rate, time left and the benchmark that is being answered."""
        pace = self._paces.setdefault((event.model, event.stage), Pace())
        pace.note(self._clock(), event.done)
        open_ = [
            f"{name} {done:,}/{total:,}"
            for name, (done, total) in event.benchmarks.items()
            if 0 < done < total
        ]
        parts = [f"{event.done:,}/{event.total:,}", pace.left(event.total), *open_[:2]]
        return ", ".join(filter(None, parts))

    def _end_before(self, event: Event) -> None:
        """Fill the bars of what has no count and ended when this event came."""
        for key, task in self.tasks.items():
            model, stage = cast("tuple[str, str]", key)
            if stage != event.stage and (event.stage == "done" or model in ("", event.model)):
                total = self.bars.tasks[task].total or 1
                if total == 1:
                    self.bars.update(task, completed=1, detail=_FINISHED)
