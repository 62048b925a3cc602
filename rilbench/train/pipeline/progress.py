"""Progress of a training run: a live picture, or plain lines when piped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rilbench.config import METHODS
from rilbench.data.rollout_groups import is_sampled, sample_group
from rilbench.jsonl_log import read_jsonl
from rilbench.printable import printable
from rilbench.progress import LiveDisplay
from rilbench.train.activity import read_activity
from rilbench.train.health import MEANING
from rilbench.train.pipeline.progress_record import planned_stages
from rilbench.train.pipeline.progress_text import (
    activity_line,
    clock_time,
    dev_line,
    duration,
    left_and_clock,
    sample_lines,
    seconds_left,
    seconds_line,
)
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.step_checkpoint import steps_in

if TYPE_CHECKING:
    from typing_extensions import Self

_MARK = {
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "skipped": ("✓", "dim"),
    "ahead": ("·", "dim"),
}
_STEPS_SHOWN = 12
_NOTES_SHOWN = 4
_OTHER_LINES = 22
"""Lines of the picture beside the table of steps, about: a terminal of few lines gets fewer
steps."""


class TrainingProgress(LiveDisplay):
    """Shows stages, collected responses and the metrics of each step.

    Args:
        console: where to.
        title: which run.
        steps: of the loop.
        folder: the run's, from which samples, saved steps and the present activity are read.
        stages: what is ahead; see `planned_stages`.
        hours: of each stage, by `rilbench plan`.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        steps: int,
        folder: Path | None = None,
        stages: Iterable[str] = (),
        hours: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(console)
        self.title, self.steps, self.folder = title, steps, folder
        self.hours = hours or {}
        self.is_silent = False
        """Whether plain lines are held back, while what a run has done before is read."""
        self.ended = ""
        """Why nothing goes on any more; "" while it does."""
        self._saved = (0.0, "")
        self.begin(stages, time.time())

    @classmethod
    def of(
        cls,
        console: Console,
        run: Run,
        stages: Iterable[str] | None = None,
        hours: Mapping[str, float] | None = None,
    ) -> Self:
        """The progress of a whole run; by default with the stages of `rilbench train` alone."""
        recipe = run.recipe
        title = f"{recipe.method}: {recipe.student.name} with {recipe.teacher_label} → {run.folder}"
        stages = planned_stages(recipe) if stages is None else stages
        return cls(console, title, recipe.schedule.steps, run.folder, stages, hours)

    def __enter__(self) -> Self:
        self.say(self.title)
        return super().__enter__()

    def say(self, text: str) -> None:
        """Print a line as it is; nothing on a terminal."""
        if not self.is_silent:
            super().say(text)

    # ---- what happens

    def begin(self, stages: Iterable[str], when: float) -> None:
        """A process begins with these stages ahead; ``when`` in seconds since the epoch."""
        with self.lock:
            self.started = self.last_event = when
            """Seconds since the epoch; the last event counts where a run has ended."""
            self.stages = dict.fromkeys(stages, "ahead")
            self.collected: dict[str, tuple[int, int]] = {}
            self.counted_from: dict[str, tuple[float, int]] = {}
            """When a count of this process began, and at which number."""
            self.pretraining: Mapping[str, Any] = {}
            self.sft: Mapping[str, Any] = {}
            self.steps_done: list[dict[str, Any]] = []
            self.warned: dict[str, str] = {}
            self.notes: list[str] = []
            self.sample: tuple[str, list[tuple[str, str]]] = ("", [])

    def stage(self, name: str, state: str) -> None:
        """A stage starts, ends, or is found done."""
        with self.lock:
            self.stages[name] = state
            if name in METHODS and state == "running" and self.folder:
                self.steps_done = read_jsonl(self.folder / "metrics.jsonl")  # before a resume
        word = {"running": "…", "done": "done", "skipped": "done before"}[state]
        self.say(f"{name}: {word}")

    def answers(self, model: str, done: int, total: int) -> None:
        """Responses collected so far from one model."""
        with self.lock:
            self.collected[model] = (done, total)
            self.counted_from.setdefault(model, (time.time(), done))
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
        elif kind == "discriminator":
            self._pretraining_line(values)
        elif kind == "sft":
            with self.lock:
                self.sft = values
                self.counted_from.setdefault("sft", (time.time(), values["step"]))
            if values["step"] == values["of"] or values["step"] % max(1, values["of"] // 10) == 0:
                self.say(f"  sft {values['step']}/{values['of']}  loss {values['loss']:.3f}")
        else:
            self._step_line(values)

    def _pretraining_line(self, values: Mapping[str, Any]) -> None:
        done = values["step"] == values["of"]
        with self.lock:
            self.stages["discriminator"] = "done" if done else "running"
            self.pretraining = values
            self.counted_from.setdefault("discriminator", (time.time(), values["step"]))
        if done:
            self.say(f"discriminator: done, loss {values['discriminator_loss']:.3f}")

    def _step_line(self, values: Mapping[str, Any]) -> None:
        number = values["step"]
        with self.lock:
            while self.steps_done and self.steps_done[-1]["step"] >= number:  # done again
                self.steps_done.pop()
            self.steps_done.append(dict(values))
        cells = [*self._cells(values), ("left", self._left())]
        if values.get("dev_accuracy") is not None:
            cells.append(("dev", f"{values['dev_accuracy']:.2f}"))
        self.say("  " + "  ".join(f"{name} {value}" for name, value in cells))
        if is_sampled(number) and not self.is_silent:
            self.show_sample(number)
        for name in values.get("warnings", ()):
            if name not in self.warned:
                text = f"warning at step {number}: {name}: {MEANING[name]}"
                with self.lock:
                    self.warned[name] = text
                self.say(f"  {text}")

    def show_sample(self, step: int) -> None:
        """Show a question of a step with responses, if the step is recorded."""
        group = sample_group(self.folder, step) if self.folder else None
        if group is None:
            return
        lines = sample_lines(group)
        title = f"sample of step {step} ({group.question_id})"
        with self.lock:
            self.sample = (title, lines)
        self.say(f"  {title}")
        for label, text in lines:
            self.say(f"    {label}: {text}")

    # ---- how it is shown

    def _cells(self, m: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The columns of a step: what a reader of the paper looks for first."""

        def pair(name: str) -> str:
            values = [m.get(f"{name}_student"), m.get(f"{name}_teacher")]
            return "/".join("-" if v is None else f"{v:.2f}" for v in values)

        cells = [("step", f"{m['step']}/{self.steps}"), ("answer", pair("answer_reward"))]
        if "discriminator_accuracy" in m:
            if "discriminator_score_student" in m:
                cells.append(("score", f"{m['discriminator_score_student']:.2f}"))
            else:
                cells.append(("similar", pair("similarity_reward")))
            cells.append(("D acc", f"{m['discriminator_accuracy']:.2f}"))
        if any(row.get("missing_verdicts") for row in self.steps_done[-_STEPS_SHOWN:]):
            cells.append(("missing", str(m.get("missing_verdicts", 0))))
        kl = ("to teacher", "teacher_kl") if "teacher_kl" in m else ("KL", "kl")
        return [
            *cells,
            (kl[0], f"{m[kl[1]]:.3f}"),
            ("tokens", f"{m['tokens_student']:.1f}"),
            ("s/step", f"{m['seconds']:.1f}"),
        ]

    def _left(self) -> str:
        return left_and_clock(seconds_left(self.steps_done, self.steps), datetime.now())

    def picture(self) -> None:
        """Print the picture as it is now; nothing on a terminal, where it is live."""
        if not self.console.is_terminal:
            self.console.print(self.render())

    def render(self) -> RenderableType:
        """Return the live picture."""
        with self.lock:
            parts: list[RenderableType] = [
                Text(printable(self.title), style="bold", overflow="fold"),
                self._stage_line(),
                *self._note_lines(),
                *self._bars(),
            ]
            if self.steps_done:
                parts.append(self._step_table())
            parts.append(self._status())
            parts += [Text(line, style="yellow") for line in self.warned.values()]
            title, lines = self.sample
            if lines:
                parts += [Text(printable(title), style="dim"), _grid(lines, indent=2)]
        return Group(*parts)

    def _stage_line(self) -> Text:
        line = Text()
        for name, state in self.stages.items():
            mark, style = _MARK[state]
            line.append(f"{mark} {name}  ", style=style)
        until = self.last_event if self.ended else time.time()
        return line.append(duration(max(0.0, until - self.started)), style="dim")

    def _note_lines(self) -> list[RenderableType]:
        shown = [f"note: {text}" for text in self.notes[-_NOTES_SHOWN:]]
        if more := len(self.notes) - len(shown):
            shown.insert(0, f"{more} earlier notes are in progress.jsonl and notes.jsonl")
        return [Text(printable(text), style="yellow") for text in shown]

    def _counts(self) -> dict[str, tuple[str, int, int]]:
        """Words, done and total of what the running stage counts."""
        rows: dict[str, tuple[str, int, int]] = {}
        if self.stages.get("collect") == "running":
            rows |= {name: (name, *counts) for name, counts in self.collected.items()}
        for name, at in (("discriminator", self.pretraining), ("sft", self.sft)):
            if self.stages.get(name) == "running" and at:
                loss = at.get("loss", at.get("discriminator_loss"))
                rows[name] = (f"{name}, loss {loss:.3f}", int(at["step"]), int(at["of"]))
        return rows

    def _bars(self) -> list[RenderableType]:
        grid = Table.grid(padding=(0, 1))
        for words, done, total in self._counts().values():
            bar = ProgressBar(total=total, completed=done, width=30)
            grid.add_row(Text(printable(f"  {words:<14}")), bar, f"{done:,}/{total:,}")
        return [grid] if grid.row_count else []

    def _seconds_left(self) -> float | None:
        """Of the running stage; None where it cannot be told yet."""
        counts = self._counts()
        if not counts:
            is_training = any(self.stages.get(name) == "running" for name in METHODS)
            known = is_training and self.steps_done
            return seconds_left(self.steps_done, self.steps) if known else None
        left = []
        for name, (_, done, total) in counts.items():
            begun, first = self.counted_from[name]
            if done == first:
                return None
            left.append((total - done) * (time.time() - begun) / (done - first))
        return max(left)

    def _times(self) -> list[tuple[str, str]]:
        """What is left of the running stage, what comes then, and when all will be done."""
        now, left = datetime.now(), self._seconds_left()
        lines = [] if left is None else [("left", left_and_clock(left, now))]
        ahead = [name for name, state in self.stages.items() if state == "ahead"]
        then = 3600 * sum(self.hours.get(name, 0.0) for name in ahead)
        if ahead and then:
            text = f"{', '.join(ahead)}: about {duration(then)} by rilbench plan"
            if left is not None:
                end = clock_time(now + timedelta(seconds=left + then), now)
                text += f"; all done at about {end}"
            lines.append(("then", text))
        return lines

    def _status(self) -> RenderableType:
        """One line each: what is left, the dev split, what goes on, the last step, the disk."""
        lines = [("", self.ended)]
        is_training = any(self.stages.get(name) == "running" for name in METHODS)
        now = read_activity(self.folder) if self.folder and is_training else None
        if not self.ended:
            lines += self._times()
        if self.steps_done:
            lines.append(("dev", dev_line(self.steps_done)))
        if is_training and not self.ended:
            if now is not None and now.since >= self.started:
                lines.append(("now", activity_line(now, time.time())))
            elif not self.steps_done:
                lines.append(("now", "starting verl (about a minute)"))
        if self.steps_done:
            lines.append(("last step", seconds_line(self.steps_done[-1])))
        lines.append(("disk", self._disk()))
        return _grid([(label, text) for label, text in lines if text])

    def _disk(self) -> str:
        """The last saved step and the free space, looked at every few seconds."""
        when, text = self._saved
        if self.folder is None or not self.folder.exists():
            return ""
        if time.monotonic() - when > 5.0 or not text:
            saved = list(steps_in(self.folder / "steps", discriminator=False))
            last = f"step {saved[-1]} is saved" if saved else "no step is saved yet"
            text = f"{last}, {shutil.disk_usage(self.folder).free / 2**30:,.1f} GiB free"
            self._saved = (time.monotonic(), text)
        return text

    def _step_table(self) -> RenderableType:
        # Eight columns in 80 characters; a number that is cut is another number.
        table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
        rows = max(3, min(_STEPS_SHOWN, self.console.height - _OTHER_LINES))
        shown = self.steps_done[-rows:]
        for name, _ in self._cells(shown[-1]):
            table.add_column(name, justify="right", no_wrap=True)
        for row in shown:
            table.add_row(*[value for _, value in self._cells(row)])
        return table


def _grid(lines: Iterable[tuple[str, str]], indent: int = 0) -> RenderableType:
    """Labels, and texts that wrap beside them."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(Text(" " * indent + printable(label)), Text(printable(text)))
    return grid
