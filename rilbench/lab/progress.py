"""What the laboratory looks like in a terminal: a bar and a line for each lane; piped: lines."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rilbench.lab.run_result import Row


class LabView:
    """Shows the events of `rilbench.lab.scheduler`; calls may come from several threads."""

    def __init__(self, console: Console | None = None, lanes: int = 2) -> None:
        self.console = console or Console(stderr=True)
        self.lanes = lanes
        self.name, self.done, self.total = "", 0, 0
        self.now: dict[int, str] = {}
        self.seconds: list[float] = []
        self.notes: list[str] = []
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._picture, console=self.console, refresh_per_second=2)

    def __enter__(self) -> LabView:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def start(self, name: str, done: int, total: int) -> None:
        """An experiment starts."""
        with self._lock:
            self.name, self.done, self.total = name, done, total
        self._say(f"{name}: {done} of {total} runs are finished")

    def lane(self, number: int, words: str) -> None:
        """What a lane does now; steps are shown on a terminal only."""
        with self._lock:
            before, self.now[number] = self.now.get(number, ""), words
        if words and words.split(":")[0] != before.split(":")[0]:
            self._say(f"lane {number}: {words}")

    def finished(self, label: str, row: Row, seconds: float) -> None:
        """A row was written."""
        mean = row.mean(row.scores)
        score = "stopped at step " + str(row.failure.step) if row.failure else f"mean {mean:.1f}"
        with self._lock:
            self.done += 1
            if row.method:  # a model that is not trained says nothing about the time left
                self.seconds.append(seconds)
        self._note(f"{label}: {score} ({seconds:.0f} s), {self.done}/{self.total}, {self.left()}")

    def failed(self, label: str, error: str) -> None:
        """A job stopped with an error."""
        self._note(f"{label} stopped: {error}")

    def stopping(self) -> None:
        """The user asked to stop."""
        self._note("stopping after the runs of now; once more to stop at once (nothing is lost)")

    def left(self) -> str:
        """Estimated time left, from the runs of this call."""
        if not self.seconds:
            return "time left not known yet"
        lanes = max(1, sum(bool(words) for words in self.now.values()))
        minutes = (self.total - self.done) * sum(self.seconds) / len(self.seconds) / lanes / 60
        return f"{int(minutes // 60)} h {int(minutes % 60):02d} min left"

    def _note(self, text: str) -> None:
        with self._lock:
            self.notes = [*self.notes[-4:], text]
        self._say(text)

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _picture(self) -> RenderableType:
        with self._lock:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=max(1, self.total), completed=self.done, width=40)
            grid.add_row(Text(self.name, "bold"), bar, f"{self.done}/{self.total}", self.left())
            lines = [Text(note, "dim") for note in self.notes]
            lanes = [Text(f"  lane {n}  {words or '-'}") for n, words in sorted(self.now.items())]
            return Group(*lines, grid, *lanes)
