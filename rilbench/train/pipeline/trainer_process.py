"""The process that runs verl, seen from outside: jobs in, what it writes out."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rilbench.processes import THREADS, start_guarded, stop_group, tree_cpu_seconds

_POLL_SECONDS = 0.2


class ProcessEndedError(Exception):
    """The process went before it answered; ``status`` is its exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class TrainerProcess:
    """The process that trains (`trainer_main`): takes one job after another over a socket.

    It ends when this process does. A job is the path of a JSON file, see `trainer_main`.
    """

    def __init__(self, log: Path, device: str) -> None:
        environment = {
            **THREADS,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
        }
        if device == "cpu":
            environment |= {"VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
        self.device = device
        # Its name must be short: a socket's path has about a hundred characters at most.
        self._folder = tempfile.TemporaryDirectory(prefix="rilbench-")
        address = Path(self._folder.name) / "jobs"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(1)
        self._connection: socket.socket | None = None
        self._seconds = 0.0
        command = [sys.executable, "-m", "rilbench.train.pipeline.trainer_main", str(address)]
        self._guard: subprocess.Popen[bytes] = start_guarded(command, log, environment)

    @property
    def alive(self) -> bool:
        """Whether it can take a job."""
        return self._guard.poll() is None

    def do(self, job: Path, watch: Callable[[], None]) -> dict[str, Any]:
        """Do one job and return the reply, calling ``watch`` several times a second meanwhile.

        Raises:
            ProcessEndedError: the process went first.
        """
        received = b""
        try:
            connection = self._connect()
            connection.sendall(f"{job}\n".encode())
            while not received.endswith(b"\n"):
                if select.select([connection], [], [], _POLL_SECONDS)[0]:
                    received += connection.recv(65536) or self._ended()
                watch()
        except ConnectionError as error:
            raise ProcessEndedError(self._guard.wait()) from error
        reply: dict[str, Any] = json.loads(received)
        return reply

    def _connect(self) -> socket.socket:
        """The connection, once the process has imported what it needs to open it."""
        while self._connection is None:
            if select.select([self._listener], [], [], _POLL_SECONDS)[0]:
                self._connection = self._listener.accept()[0]
            elif not self.alive:
                self._ended()
        return self._connection

    @staticmethod
    def _ended() -> NoReturn:
        raise ConnectionError("the process ended")

    def cpu_seconds(self) -> float:
        """CPU time (user and system) of the process and all that it started, until now.

        Of a descendant that ended, what its parent waited for counts; the rest is not known.
        """
        self._seconds = max(self._seconds, tree_cpu_seconds(self._guard.pid))
        return self._seconds

    def close(self) -> None:
        """End it and all that it started."""
        self.cpu_seconds()
        if self._connection is not None:
            self._connection.close()
        self._listener.close()
        stop_group(self._guard)
        self._folder.cleanup()


class Tail:
    """New whole lines of a growing JSON-lines file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[dict[str, Any]]:
        """The lines that were completed since the last call."""
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self.offset:  # written anew
            self.offset = 0
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
