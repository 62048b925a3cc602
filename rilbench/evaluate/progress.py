"""Progress of an evaluation: a bar for each stage of each model, or plain lines when piped."""

from __future__ import annotations

from typing import cast

from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from rilbench.evaluate.run import Progress as Event
from rilbench.progress import BarDisplay

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
    """Shows the events of `evaluate_many`."""

    def __init__(self) -> None:
        super().__init__(MofNCompleteColumn(), TimeElapsedColumn())
        self.said = ""

    def report(self, event: Event) -> None:
        """Show one event; piped, a line at every quarter."""
        text = " ".join(filter(None, (event.model, _WORDS.get(event.stage, event.stage))))
        if event.note:
            text = f"{text}: {event.note}"
        if self.console.is_terminal:
            self._end_before(event)
            if event.stage == "done":
                return
            self.update((event.model, event.stage), text, event.done, event.total or 1)
            return
        quarter = 4 * event.done // event.total if event.total else 0
        if f"{text}{quarter}" != self.said:
            self.said = f"{text}{quarter}"
            self.say(text + (f" {event.done}/{event.total}" if event.total else ""))

    def _end_before(self, event: Event) -> None:
        """Fill the bars of what has no count and ended when this event came."""
        for key, task in self.tasks.items():
            model, stage = cast("tuple[str, str]", key)
            if stage != event.stage and (event.stage == "done" or model in ("", event.model)):
                total = self.bars.tasks[task].total or 1
                if total == 1:
                    self.bars.update(task, completed=1)
