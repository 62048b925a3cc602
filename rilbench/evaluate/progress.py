"""What an evaluation looks like in a terminal: a bar for each model, or plain lines when piped."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rilbench.evaluate.run import Progress as Event

_WORDS = {
    "environment": "making the kit's environment (once)",
    "data": "getting the data",
    "prompts": "the kit writes the prompts",
    "server": "starting the model's server",
    "answers": "answers",
    "scores": "the kit scores the answers",
    "done": "done",
}


class EvaluationProgress:
    """Shows the events of `evaluate_many`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[tuple[str, str], object] = {}
        self.said = ""

    def __enter__(self) -> EvaluationProgress:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def report(self, event: Event) -> None:
        """Show one event."""
        words = " ".join(filter(None, (event.model, _WORDS.get(event.stage, event.stage))))
        if event.note:
            words = f"{words}: {event.note}"
        if self.console.is_terminal:
            key = (event.model, event.stage)
            total = event.total or 1
            if key not in self.tasks:
                self.tasks[key] = self.bars.add_task(words, total=total)
            task = self.tasks[key]
            self.bars.update(task, description=words, completed=event.done, total=total)  # type: ignore[arg-type]
            return
        quarter = 4 * event.done // event.total if event.total else 0
        line = words + (f" {event.done}/{event.total}" if event.total else "")
        if f"{words}{quarter}" != self.said:
            self.said = f"{words}{quarter}"
            self.console.print(line, highlight=False, markup=False)
