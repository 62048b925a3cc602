"""The process that runs verl, seen from outside: a job in, the lines that it records out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.processes import THREADS, GuardedProcess, start_guarded, stop_group, tree_cpu_seconds
from rilbench.serving import log_end
from rilbench.train import notes

POLL_SECONDS = 0.2
RECORDS = {"discriminator": "discriminator.jsonl", "ril": "metrics.jsonl", "note": notes.FILE}
"""Files of a run's folder that the trainer appends lines to, by their kind."""

OnLine = Callable[[str, Mapping[str, Any]], None]
"""Called with the kind and the values of each line that the trainer records."""


class TrainerProcess:
    """One run's training in a process of its own (`trainer_main`), which ends when this one does.

    Args:
        log: file for the process's output.
        environment: its variables, in addition to ours.
    """

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log, self.environment = log, environment or {}
        self._seconds = 0.0
        self._guard: GuardedProcess | None = None

    def train(self, job: Path, device: str, on_line: OnLine) -> None:
        """Train the run of a ``job.json``, passing on each line that the trainer records.

        Raises:
            UserError: the training stopped.
        """
        folder = Path(json.loads(job.read_text(encoding="utf-8"))["run_dir"])
        watch = watcher(folder, on_line)
        outcome = job.with_name("outcome.json")
        outcome.unlink(missing_ok=True)
        command = [sys.executable, "-m", "rilbench.train.pipeline.trainer_main", str(job)]
        environment = {**THREADS, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
        if device == "cpu":
            environment |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
        environment |= self.environment
        self._guard = start_guarded(command, self.log, environment)
        try:
            while self._guard.poll() is None:
                watch()
                self.cpu_seconds()
                time.sleep(POLL_SECONDS)
        finally:
            stop_group(self._guard)
        watch()
        if outcome.exists():
            reason = json.loads(outcome.read_text(encoding="utf-8"))["error"]
        else:
            reason = f"(status {self._guard.returncode}): {log_end(self.log)}"
        if reason:
            raise UserError(
                f"the training stopped {reason}; fix the cause, then continue with --resume"
            )

    def cpu_seconds(self) -> float:
        """CPU time (user and system) of the process and all that it started, until now.

        A descendant that ended counts if its parent waited for it.
        """
        if self._guard is not None:
            self._seconds = max(self._seconds, tree_cpu_seconds(self._guard.pid))
        return self._seconds


def watcher(
    folder: Path,
    on_line: OnLine,
    records: Mapping[str, str] = RECORDS,
    *,
    from_start: bool = False,
) -> Callable[[], None]:
    """Return a function that passes on the lines recorded in a run's folder since its last call.

    Args:
        folder: the run's.
        on_line: called with the kind and the values of each line.
        records: files of the folder, by kind, in the order in which they are read.
        from_start: pass on existing lines, too.
    """
    tails = {stage: Tail(folder / name, from_start=from_start) for stage, name in records.items()}

    def watch() -> None:
        for stage, tail in tails.items():
            for line in tail.new_lines():
                on_line(stage, line)

    return watch


class Tail:
    """New whole lines of a growing JSON-lines file; ``from_start``: the existing ones first."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self.path = path
        self.offset = path.stat().st_size if path.exists() and not from_start else 0

    def new_lines(self) -> list[dict[str, Any]]:
        """Return the lines that were completed since the last call."""
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self.offset:  # the file was replaced
            self.offset = 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
