"""Progress of a command: a live display on a terminal, one line for each event when piped."""

from __future__ import annotations

import threading
from collections import deque
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

from rilbench.printable import printable

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
        """Print lines as they are, without markup; nothing on a terminal."""
        if not self.console.is_terminal:
            text = printable(text, keep_lines=True)
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

    def update(self, key: Hashable, text: str, done: int, total: int, detail: str = "") -> None:
        """Show a task's bar; a new key adds a bar.

        Args:
            key: of the task.
            text: what is done.
            done: how many.
            total: of how many; 0 if that is not known.
            detail: shown where a column asks for it.
        """
        whole = total or None
        if key not in self.tasks:
            self.tasks[key] = self.bars.add_task(text, total=whole, detail=detail)
        self.bars.update(
            self.tasks[key], description=text, completed=done, total=whole, detail=detail
        )


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


class Pace:
    """How fast a count grows, over the last minutes."""

    def __init__(self, window: float = 300.0) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, done: int) -> None:
        """Enter the count at a time in seconds; the first one is where the work began."""
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > self._window:
            self._seen.popleft()

    def left(self, total: int) -> str:
        """Return the rate and the time that is left, in words; empty before there is a rate."""
        (begun, first), (now, last) = self._seen[0], self._seen[-1]
        if last <= first or now <= begun:
            return ""
        rate = (last - first) / (now - begun)
        text = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        return text if last >= total else f"{text}, {in_words((total - last) / rate)} left"


def in_words(seconds: float) -> str:
    """Return a duration as people say it, such as ``2 h 05 min``."""
    if seconds < 60:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
