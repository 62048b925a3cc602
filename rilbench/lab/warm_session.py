"""A warm session: verl started once, the lab's runs trained in it one after another.

Starting verl takes a minute, since several processes import it. In a session they stay: the next
run gives them its own configuration and starts in seconds. A run's metrics do not depend on
whether it was the first in its process. Only the lab needs this, on a CPU; a user's run has a
process of its own (`rilbench.train.pipeline.trainer_process`).
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from rilbench.processes import start_guarded, stop_group, tree_cpu_seconds
from rilbench.scratch import Scratch
from rilbench.serving import log_end
from rilbench.train.pipeline.trainer_process import (
    POLL_SECONDS,
    OnLine,
    raise_if_stopped,
    trainer_environment,
    watcher,
)


class WarmSession:
    """A context manager around one process that trains; it starts with the first run.

    A run that fails leaves the session usable: if its process died, the next run starts another.

    Args:
        log: output of the process while no run is in it (a run's own is ``logs/trainer.log``).
        threads: of the trainer; 0: as many as there are cores, at most 4. Another number sums in
            another order: metrics of runs with different numbers differ by rounding.
    """

    def __init__(self, log: Path, threads: int = 0) -> None:
        self.log, self.threads = log, threads
        self._process: _WarmProcess | None = None
        self._seconds_before = 0.0

    def __enter__(self) -> WarmSession:
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

    def train(self, job: Path, device: str, on_line: OnLine) -> None:
        """Train the run of a ``job.json``, passing on each line that the trainer records.

        Raises:
            UserError: the training stopped.
        """
        assert device == "cpu", "vLLM's servers cannot change their model: no warm runs on GPUs"
        values = json.loads(job.read_text(encoding="utf-8"))
        folder = Path(values["run_dir"])
        job.write_text(json.dumps({**values, "threads": self.threads}, indent=2), encoding="utf-8")
        watch = watcher(folder, on_line)
        if self._process is not None and not self._process.alive:
            self._close()
        if self._process is None:
            self._process = _WarmProcess(self.log)
        try:
            reply = self._process.do(job, watch)
            reason, ended = reply["error"], not reply["usable"]
        except _ProcessEndedError as error:
            logs = [log for log in (folder / "logs" / "trainer.log", self.log) if log.exists()]
            end = log_end(max(logs, key=lambda log: log.stat().st_mtime_ns))
            reason, ended = f"(status {error.status}): {end}", True
        except BaseException:  # interrupted: the job would go on
            self._close()
            raise
        watch()
        if ended:
            self._close()
        raise_if_stopped(reason)

    def _close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._seconds_before += self._process.cpu_seconds()
            self._process = None


class _ProcessEndedError(Exception):
    """The process ended before it answered; ``status`` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class _WarmProcess:
    """`warm_main` in a process of its own: takes one job after another over a socket."""

    def __init__(self, log: Path) -> None:
        self._scratch = Scratch()
        address = self._scratch.path / "jobs"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._seconds = 0.0
        command = [sys.executable, "-m", "rilbench.lab.warm_main", str(address)]
        self._guard = start_guarded(command, log, trainer_environment("cpu"))

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._guard.poll() is None

    def do(self, job: Path, watch: Callable[[], None]) -> dict[str, Any]:
        """Do one job and return the reply, calling ``watch`` several times a second meanwhile.

        Raises:
            _ProcessEndedError: the process ended first.
        """
        received = b""
        try:
            connection = self._connect()
            connection.sendall(f"{job}\n".encode())
            while not received.endswith(b"\n"):
                if select.select([connection], [], [], POLL_SECONDS)[0]:
                    received += connection.recv(65536) or self._ended()
                watch()
        except ConnectionError as error:
            raise _ProcessEndedError(self._guard.wait()) from error
        reply: dict[str, Any] = json.loads(received)
        return reply

    def _connect(self) -> socket.socket:
        """The connection, once the process has imported what it needs to open it."""
        while self._connection is None:
            if select.select([self._listener], [], [], POLL_SECONDS)[0]:
                self._connection = self._listener.accept()[0]
            elif not self.alive:
                self._ended()
        return self._connection

    @staticmethod
    def _ended() -> NoReturn:
        raise ConnectionError("the process ended")

    def cpu_seconds(self) -> float:
        """CPU time (user and system) of the process and all that it started, until now."""
        self._seconds = max(self._seconds, tree_cpu_seconds(self._guard.pid))
        return self._seconds

    def close(self) -> None:
        """End it and all that it started."""
        self.cpu_seconds()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        stop_group(self._guard)
        self._scratch.close()
