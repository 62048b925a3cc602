"""Progress of an evaluation: a bar for each stage of each model, or plain lines when piped."""

from __future__ import annotations

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
            self.update((event.model, event.stage), text, event.done, event.total or 1)
            return
        quarter = 4 * event.done // event.total if event.total else 0
        if f"{text}{quarter}" != self.said:
            self.said = f"{text}{quarter}"
            self.say(text + (f" {event.done}/{event.total}" if event.total else ""))
