"""Progress of a training run: a live table, or plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rilbench.config import METHODS
from rilbench.progress import LiveDisplay
from rilbench.train.health import MEANING

if TYPE_CHECKING:
    from typing_extensions import Self

_MARK = {"running": ("▸", "cyan"), "done": ("✓", "green"), "skipped": ("✓", "dim")}
_STEPS_SHOWN = 12


def duration(seconds: float) -> str:
    """A time as people say it: ``0:42``, ``7:05``, ``3 h 20 min``, ``2 d 5 h``."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}:{int(seconds % 60):02d}"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


class TrainingProgress(LiveDisplay):
    """Shows stages, collected responses and the metrics of each step."""

    def __init__(self, console: Console, title: str, steps: int) -> None:
        super().__init__(console)
        self.title, self.steps = title, steps
        self.stages: dict[str, str] = {}
        self.collected: dict[str, tuple[int, int]] = {}
        self.pretraining: Mapping[str, Any] = {}
        self.sft: Mapping[str, Any] = {}
        self.steps_done: list[Mapping[str, Any]] = []
        self.warned: dict[str, str] = {}
        self.notes: list[str] = []
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        self.say(self.title)
        return super().__enter__()

    # ---- what happens

    def stage(self, name: str, state: str) -> None:
        """A stage starts, ends, or is found done."""
        with self.lock:
            self.stages[name] = state
        word = {"running": "…", "done": "done", "skipped": "done before"}[state]
        self.say(f"{name}: {word}")

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far from one model."""
        with self.lock:
            self.collected[model] = (done, total)
        if done == total or (done and done % max(1, total // 4) == 0):
            self.say(f"  {model}: {done} of {total} responses")

    def note(self, text: str) -> None:
        """A note for the user before the run goes on."""
        with self.lock:
            self.notes.append(text)
        self.say(f"note: {text}")

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """The metrics of one step of the loop (``ril``), of ``discriminator`` or of ``sft``.

        Or a ``note`` of the trainer.
        """
        if kind == "note":
            when = f"step {values['step']}: " if values["step"] else ""
            self.note(when + values["note"])
            return
        done = values["step"] == values.get("of")
        with self.lock:
            if kind == "discriminator":
                self.stages["discriminator"] = "done" if done else "running"
                self.pretraining = values
            elif kind == "sft":
                self.sft = values
            else:
                self.steps_done.append(values)
        if kind == "discriminator":
            if done:
                self.say(f"discriminator: done, loss {values['discriminator_loss']:.3f}")
        elif kind == "sft":
            if done or values["step"] % max(1, values["of"] // 10) == 0:
                self.say(f"  sft {values['step']}/{values['of']}  loss {values['loss']:.3f}")
        else:
            cells = self._cells(values)
            if values.get("dev_accuracy") is not None:
                cells.append(("dev", f"{values['dev_accuracy']:.2f}"))
            self.say("  " + "  ".join(f"{n} {v}" for n, v in cells))
            self._warn(values)

    # ---- how it is shown

    def _warn(self, values: Mapping[str, Any]) -> None:
        """A line for each warning when it first appears."""
        for name in values.get("warnings", ()):
            if name not in self.warned:
                text = f"warning at step {values['step']}: {name}: {MEANING[name]}"
                with self.lock:
                    self.warned[name] = text
                self.say(f"  {text}")

    def _cells(self, m: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The columns of a step: what a reader of the paper looks for first."""

        def pair(name: str) -> str:
            values = [m.get(f"{name}_student"), m.get(f"{name}_teacher")]
            return "/".join("-" if v is None else f"{v:.2f}" for v in values)

        cells = [("step", f"{m['step']}/{self.steps}"), ("answer", pair("answer_reward"))]
        if "discriminator_accuracy" in m:
            cells.append(("similar", pair("similarity_reward")))
            cells.append(("D acc", f"{m['discriminator_accuracy']:.2f}"))
        if any(row.get("missing_verdicts") for row in self.steps_done):
            cells.append(("missing", str(m.get("missing_verdicts", 0))))
        cells += [
            ("KL", f"{m['kl']:.3f}"),
            ("tokens", f"{m['tokens_student']:.1f}"),
            ("s/step", f"{m['seconds']:.1f}"),
            ("left", self._left(m)),
        ]
        return cells

    def _dev(self) -> str:
        """The last score on the dev split, and the best; "" before one."""
        scored = [m for m in self.steps_done if m.get("dev_accuracy") is not None]
        if not scored:
            return ""
        best = max(scored, key=lambda m: m["dev_accuracy"])
        last = scored[-1]
        return (
            f"dev: {last['dev_accuracy']:.2f} at step {last['step']}, "
            f"best {best['dev_accuracy']:.2f} at step {best['step']}"
        )

    def _left(self, m: Mapping[str, Any]) -> str:
        recent = [row["seconds"] for row in self.steps_done[-10:]] or [m["seconds"]]
        return duration((self.steps - m["step"]) * sum(recent) / len(recent))

    def render(self) -> RenderableType:
        """Return the live display."""
        with self.lock:
            parts: list[RenderableType] = [Text(self.title, style="bold")]
            elapsed = time.monotonic() - self.started
            stages = Text()
            for name, state in self.stages.items():
                mark, style = _MARK[state]
                stages.append(f"{mark} {name}   ", style=style)
            stages.append(duration(elapsed), style="dim")
            parts.append(stages)
            parts += [Text(f"note: {text}", style="yellow") for text in self.notes]
            if self.stages.get("collect") == "running":
                parts += [self._bar(name, *counts) for name, counts in self.collected.items()]
            if self.stages.get("discriminator") == "running":
                p = self.pretraining
                parts.append(self._bar("discriminator", int(p["step"]), int(p["of"])))
            if self.stages.get("sft") == "running" and self.sft:
                s = self.sft
                parts.append(self._bar(f"loss {s['loss']:.3f}", int(s["step"]), int(s["of"])))
            if self.steps_done:
                parts.append(self._step_table())
                if dev := self._dev():
                    parts.append(Text(dev))
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
        # Nine columns in 80 characters; a number that is cut is another number.
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        shown = self.steps_done[-_STEPS_SHOWN:]
        for name, _ in self._cells(shown[-1]):
            table.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(*[value for _, value in self._cells(row)])
        return table
