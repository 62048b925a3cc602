"""Progress of a command: a live display on a terminal, one line for each event when piped."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from typing_extensions import Self


class ProgressDisplay:
    """Base of the displays; a context manager that runs the live display on a terminal only.

    Subclasses hold ``lock`` while they change what the display shows, since events may come from
    several threads.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.lock = threading.Lock()

    def make_display(self) -> Live | Progress:
        """Return the live display."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._display = self.make_display()
            self._display.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._display.stop()

    def say(self, text: str) -> None:
        """Print a line as it is, without markup; nothing on a terminal."""
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class LiveDisplay(ProgressDisplay):
    """Redraws `render` several times a second."""

    redraws_per_second = 4

    def render(self) -> RenderableType:
        """Return the picture of now."""
        raise NotImplementedError

    def make_display(self) -> Live:
        """Return the live display."""
        return Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=self.redraws_per_second,
        )


class BarDisplay(ProgressDisplay):
    """Shows a bar for each of several tasks, on standard error."""

    def __init__(self, *columns: ProgressColumn) -> None:
        super().__init__(Console(stderr=True))
        text = TextColumn("{task.description}")
        self.bars = Progress(text, BarColumn(), *columns, console=self.console)
        self.tasks: dict[Hashable, TaskID] = {}

    def make_display(self) -> Progress:
        """Return the bars."""
        return self.bars

    def update(self, key: Hashable, text: str, done: int, total: int) -> None:
        """Show a task's bar; a new key adds a bar. A total of 0 is not known."""
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(text, total=total or None)
        self.bars.update(self.tasks[key], description=text, completed=done, total=total or None)


class CountProgress(BarDisplay):
    """Counts with a bar each; piped, lines now and then.

    They come at each fifth of a total of ``FEW`` or more, else at each ``MANY``.
    """

    FEW, MANY = 100, 10_000

    def __init__(self) -> None:
        super().__init__(MofNCompleteColumn(), TimeRemainingColumn())
        self._said: dict[str, int] = {}

    def report(self, text: str, done: int, total: int = 0) -> None:
        """Show a count; the first word of ``text`` names its bar."""
        name = text.split(" ", 1)[0]
        if self.console.is_terminal:
            self.update(name, text, done, total)
            return
        part = 5 * done // total if total >= self.FEW else done // self.MANY
        if part > self._said.get(name, 0):
            self._said[name] = part
            self.say(f"{text} {done}" + (f"/{total}" if total else ""))
