"""Progress of the lab: a bar and a line for each worker, or plain lines when piped."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rilbench.lab.run_result import RunResult
from rilbench.progress import LiveDisplay


class LabProgress(LiveDisplay):
    """Shows the events of `rilbench.lab.scheduler`."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console or Console(stderr=True))
        self.name, self.done, self.total = "", 0, 0
        self.now: dict[int, str] = {}
        self.seconds: list[float] = []
        self.notes: list[str] = []

    def start(self, name: str, done: int, total: int) -> None:
        """An experiment starts."""
        with self.lock:
            self.name, self.done, self.total = name, done, total
        self.say(f"{name}: {done} of {total} runs are finished")

    def worker(self, number: int, text: str) -> None:
        """What a worker does now; its steps are shown on a terminal only."""
        with self.lock:
            before, self.now[number] = self.now.get(number, ""), text
        if text and text.split(":")[0] != before.split(":")[0]:
            self.say(f"worker {number}: {text}")

    def finished(self, label: str, result: RunResult, seconds: float) -> None:
        """A result was written."""
        score = f"mean {result.mean(result.scores):.1f}" if result.scores else "no scores"
        if result.failure:
            score = f"stopped at step {result.failure.step}"
        with self.lock:
            self.done += 1
            if result.method:  # the time of a model that is not trained predicts nothing
                self.seconds.append(seconds)
        self._note(f"{label}: {score} ({seconds:.0f} s), {self.done}/{self.total}, {self._left()}")

    def failed(self, label: str, error: str) -> None:
        """A job stopped with an error."""
        self._note(f"{label} stopped: {error}")

    def stopping(self) -> None:
        """The user asked to stop."""
        self._note("stopping after the running jobs; press again to stop at once (nothing is lost)")

    def render(self) -> RenderableType:
        """Return the live display."""
        with self.lock:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=max(1, self.total), completed=self.done, width=40)
            grid.add_row(Text(self.name, "bold"), bar, f"{self.done}/{self.total}", self._left())
            notes = [Text(note, "dim") for note in self.notes]
            now = [Text(f"  worker {n}  {text or '-'}") for n, text in sorted(self.now.items())]
            return Group(*notes, grid, *now)

    def _left(self) -> str:
        """Estimated time left, from the runs of this call."""
        if not self.seconds:
            return "time left not known yet"
        workers = max(1, sum(bool(text) for text in self.now.values()))
        minutes = (self.total - self.done) * sum(self.seconds) / len(self.seconds) / workers / 60
        return f"{int(minutes // 60)} h {int(minutes % 60):02d} min left"

    def _note(self, text: str) -> None:
        with self.lock:
            self.notes = [*self.notes[-4:], text]
        self.say(text)
