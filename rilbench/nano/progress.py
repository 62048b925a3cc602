"""Progress of `rilbench nano build`: a bar for each model, or plain lines when piped."""

from __future__ import annotations

from rich.progress import TextColumn, TimeRemainingColumn

from rilbench.progress import BarDisplay


class BuildProgress(BarDisplay):
    """Shows the events of `build`."""

    def __init__(self) -> None:
        counts = TextColumn("{task.completed:.0f}/{task.total:.0f}")
        super().__init__(counts, TimeRemainingColumn())

    def report(self, text: str, done: int, total: int) -> None:
        """Show one event; ``text`` begins with the model's name."""
        if self.console.is_terminal:
            self.update(text.split(" ", 1)[0], text, done, total)
        elif done == total or done % max(1, total // 5) == 0:
            self.say(f"{text} {done}/{total}")
