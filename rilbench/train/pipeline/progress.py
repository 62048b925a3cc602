"""What a training run looks like in a terminal: a live table, or plain lines when piped."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rilbench.config import METHODS
from rilbench.train.health import MEANING

_MARK = {"running": ("▸", "cyan"), "done": ("✓", "green"), "skipped": ("✓", "dim")}
_ROWS_SHOWN = 12


class TrainingProgress:
    """Shows stages, collected answers and the figures of each step.

    On a terminal one live picture; otherwise a line for each event, so that logs stay readable.
    Calls may come from several threads.
    """

    def __init__(self, console: Console, title: str, steps: int) -> None:
        self.console, self.title, self.steps = console, title, steps
        self.stages: dict[str, str] = {}
        self.collected: dict[str, tuple[int, int]] = {}
        self.pretraining: Mapping[str, Any] = {}
        self.supervised: Mapping[str, Any] = {}
        self.rows: list[Mapping[str, Any]] = []
        self.warned: dict[str, str] = {}
        self.notes: list[str] = []
        self.started = time.monotonic()
        self.step_started = self.started
        self._lock = threading.Lock()
        self._live = Live(
            get_renderable=self._picture,
            console=console,
            refresh_per_second=4,
            transient=False,
        )

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            self._live.start()
        else:
            self.console.print(self.title, highlight=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    # ---- what happens

    def stage(self, name: str, state: str) -> None:
        """A stage starts, ends, or is found done."""
        with self._lock:
            self.stages[name] = state
        word = {"running": "…", "done": "done", "skipped": "done before"}[state]
        self._say(f"{name}: {word}")

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far from one model."""
        with self._lock:
            self.collected[model] = (done, total)
        if done == total or (done and done % max(1, total // 4) == 0):
            self._say(f"  {model}: {done} of {total} responses")

    def note(self, text: str) -> None:
        """What the user should know before more is spent."""
        with self._lock:
            self.notes.append(text)
        self._say(f"note: {text}")

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """The figures of one step."""
        with self._lock:
            if kind == "discriminator":
                self.stages["discriminator"] = "running"
                self.pretraining = values
                if values["step"] == values["of"]:
                    self.stages["discriminator"] = "done"
            elif kind == "sft":
                self.supervised = values
            else:
                self.rows.append(values)
        if kind == "discriminator":
            if values["step"] == values["of"]:
                self._say(f"discriminator: done, loss {values['discriminator_loss']:.3f}")
        elif kind == "sft":
            if values["step"] % max(1, values["of"] // 10) == 0 or values["step"] == values["of"]:
                self._say(f"  sft {values['step']}/{values['of']}  loss {values['loss']:.3f}")
        else:
            self._say("  " + "  ".join(f"{n} {v}" for n, v in self._cells(values)))
            self._warn(values)

    # ---- how it is shown

    def _say(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _warn(self, values: Mapping[str, Any]) -> None:
        """A line for each warning when it first appears."""
        for name in values.get("warnings", ()):
            if name not in self.warned:
                text = f"warning at step {values['step']}: {name}: {MEANING[name]}"
                with self._lock:
                    self.warned[name] = text
                self._say(f"  {text}")

    def _cells(self, m: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The columns of a step: what a reader of the paper looks for first."""

        def pair(name: str) -> str:
            values = [m.get(f"{name}_student"), m.get(f"{name}_teacher")]
            return "/".join("-" if v is None else f"{v:.2f}" for v in values)

        cells = [("step", f"{m['step']}/{self.steps}"), ("answer", pair("answer"))]
        if "discriminator_accuracy" in m:
            cells.append(("similar", pair("similarity")))
            cells.append(("D acc", f"{m['discriminator_accuracy']:.2f}"))
        if any(row.get("missing_verdicts") for row in self.rows):
            cells.append(("no verdict", str(m.get("missing_verdicts", 0))))
        cells += [
            ("KL", f"{m['kl']:.3f}"),
            ("tokens", f"{m['tokens_student']:.1f}"),
            ("s/step", f"{m['seconds']:.1f}"),
            ("left", self._left(m)),
        ]
        if m.get("dev_accuracy") is not None:
            cells.append(("dev", f"{m['dev_accuracy']:.2f}"))
        return cells

    def _left(self, m: Mapping[str, Any]) -> str:
        recent = [row["seconds"] for row in self.rows[-10:]] or [m["seconds"]]
        seconds = (self.steps - m["step"]) * sum(recent) / len(recent)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"

    def _picture(self) -> RenderableType:
        with self._lock:
            parts: list[RenderableType] = [Text(self.title, style="bold")]
            elapsed = time.monotonic() - self.started
            stages = Text()
            for name, state in self.stages.items():
                mark, style = _MARK[state]
                stages.append(f"{mark} {name}   ", style=style)
            stages.append(f"{int(elapsed // 60)}:{int(elapsed % 60):02d}", style="dim")
            parts.append(stages)
            parts += [Text(f"note: {text}", style="yellow") for text in self.notes]
            if self.stages.get("collect") == "running":
                parts += [self._bar(name, *counts) for name, counts in self.collected.items()]
            if self.stages.get("discriminator") == "running":
                p = self.pretraining
                parts.append(self._bar("discriminator", int(p["step"]), int(p["of"])))
            if self.stages.get("sft") == "running" and self.supervised:
                s = self.supervised
                parts.append(self._bar(f"loss {s['loss']:.3f}", int(s["step"]), int(s["of"])))
            if self.rows:
                parts.append(self._step_table())
                parts += [Text(line, style="yellow") for line in self.warned.values()]
            elif any(name in self.stages for name in METHODS):
                parts.append(Text("starting verl (about a minute) …", style="dim"))
        return Group(*parts)

    @staticmethod
    def _bar(name: str, done: int, total: int) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=total, completed=done, width=40)
        grid.add_row(f"  {name:<14}", bar, f"{done}/{total}")
        return grid

    def _step_table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2), header_style="dim")
        shown = self.rows[-_ROWS_SHOWN:]
        for name, _ in self._cells(shown[-1]):
            table.add_column(name, justify="right")
        for row in shown:
            table.add_row(*[value for _, value in self._cells(row)])
        return table
