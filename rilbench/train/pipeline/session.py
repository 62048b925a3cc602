"""A session: verl started once, runs trained in it one after another.

Starting verl takes a minute, since several processes import it one after another. In a session they
stay; the next run gives them its own configuration and starts in seconds. A run's figures do not
depend on whether it was the first in its process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rilbench.errors import UserError
from rilbench.serving import log_end
from rilbench.train.pipeline.trainer_process import ProcessEndedError, Tail, TrainerProcess

_RECORDS = {"discriminator": "discriminator.jsonl", "ril": "metrics.jsonl"}


class Session:
    """A context manager around one process that trains; it starts with the first run.

    A run that fails leaves the session usable: where the process died, the next run starts another.
    On GPUs every run has a process of its own, since vLLM's servers cannot change their model.

    Args:
        log: what the process writes while no run is in it (a run's own is ``logs/trainer.log``).
        threads: of the trainer on a CPU; 0: as many as there are cores, at most 4. Another number
            sums in another order: figures of runs with different numbers differ by rounding.
        keep: whether more than one run will come.
    """

    def __init__(self, log: Path, threads: int = 0, *, keep: bool = True) -> None:
        self.log, self.threads, self.keep = log, threads, keep
        self._process: TrainerProcess | None = None
        self._seconds_before = 0.0

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def cpu_seconds(self) -> float:
        """CPU time (user and system) of the session's processes until now."""
        now = self._process.cpu_seconds() if self._process else 0.0
        return self._seconds_before + now

    def train(
        self, job: Path, device: str, on_line: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        """Do the job in a run's ``job.json``, passing on each line that the trainer records.

        Raises:
            UserError: the training stopped.
        """
        values = json.loads(job.read_text(encoding="utf-8"))
        folder = Path(values["run_dir"])
        values |= {"threads": self.threads, "keep": self.keep and device == "cpu"}
        job.write_text(json.dumps(values, indent=2), encoding="utf-8")
        tails = {kind: Tail(folder / name) for kind, name in _RECORDS.items()}

        def watch() -> None:
            for kind, tail in tails.items():
                for line in tail.new_lines():
                    on_line(kind, line)

        try:
            reply = self._ready(device).do(job, watch)
            reason = reply["error"]
            ended = not values["keep"] or not reply["usable"]
        except ProcessEndedError as error:
            logs = [log for log in (folder / "logs" / "trainer.log", self.log) if log.exists()]
            end = log_end(max(logs, key=lambda log: log.stat().st_mtime_ns))
            reason, ended = f"(status {error.status}): {end}", True
        except BaseException:  # interrupted: the job would go on
            self._close()
            raise
        watch()
        if ended:
            self._close()
        if reason:
            raise UserError(
                f"the training stopped {reason}; mend the cause, then continue with --resume"
            )

    def _ready(self, device: str) -> TrainerProcess:
        if self._process and not (self._process.alive and self._process.device == device):
            self._close()
        if self._process is None:
            self._process = TrainerProcess(self.log, device)
        return self._process

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._seconds_before += self._process.cpu_seconds()
            self._process = None
