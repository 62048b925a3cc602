"""Progress of `rilbench nano build`: a bar for each model, or plain lines when piped."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class BuildView:
    """Shows the events of `build`."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BuildView:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def report(self, what: str, done: int, total: int) -> None:
        """Show one event; ``what`` begins with the model's name."""
        name = what.split(" ", 1)[0]
        if not self.console.is_terminal:
            if done == total or done % max(1, total // 5) == 0:
                self.console.print(f"{what} {done}/{total}", highlight=False, markup=False)
            return
        if name not in self.tasks:
            self.tasks[name] = self.bars.add_task(what, total=total)
        self.bars.update(self.tasks[name], description=what, completed=done)
