"""A kit's worker process: jobs go in, and results come out as files.

The kits' imports take about 20 s, so one process serves a whole evaluation. It starts early,
imports while others work, and then does one job after another.
"""

import json
import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.serving import log_end

_log = logging.getLogger(__name__)

# All that a kit inherits. It gets none of the user's keys: VLMEvalKit logs them.
_INHERITED = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH"]
_PROXIES = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "no_proxy"]
_NETWORK = [*_PROXIES, "HF_HOME", "HF_ENDPOINT"]


def worker_files(*names: str) -> tuple[Path, ...]:
    """Return the files of a worker: the script first, the module that all share last."""
    return tuple(Path(__file__).with_name(f"{name}.py") for name in (*names, "worker_common"))


def kit_environment(settings: Mapping[str, str], *, network: bool = False) -> dict[str, str]:
    """Return environment variables for a worker: a few inherited ones and ``settings``.

    Only a worker that uses the ``network`` gets proxies and the hub's settings: VLMEvalKit sends
    all requests through ``http_proxy`` and ignores ``no_proxy``, but every judge that a kit asks
    is on this machine (`rilbench.judge.proxy`).
    """
    names = [*_INHERITED, *_NETWORK] if network else _INHERITED
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        "OMP_NUM_THREADS": "1",
        **({} if network else {"HF_HUB_OFFLINE": "1"}),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }


class KitProcess:
    """A worker script under a kit's Python; a context manager that kills it with the block.

    The worker reads one JSON line ``{"phase", "job"}`` per job from its standard input and answers
    each with one line. When this process is killed, the worker's input closes and it ends.
    """

    def __init__(self, python: Path, script: Path, log: Path, environment: dict[str, str]) -> None:
        self.log, self._home = log, python.parent.parent
        _log.info("starting the kit %s; its log is %s", self._home.name, log)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [str(python), str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment,
                start_new_session=True,
            )

    def __enter__(self) -> "KitProcess":
        return self

    def __exit__(self, *_: object) -> None:
        # The worker holds nothing of value: results are files that it renames when complete.
        # The whole group is killed, as the kit's own pools would outlive the worker.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _log.info("the kit %s ended", self._home.name)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # from a job that it never read
                    pipe.close()

    def submit(self, phase: str, job: Mapping[str, Any]) -> None:
        """Send a job and return at once; `wait` for it before the next."""
        _log.debug("%s: job %s", self._home.name, phase)
        assert self._process.stdin is not None
        line = json.dumps({"phase": phase, "job": job}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def wait(self) -> None:
        """Wait until the job is done.

        Raises:
            UserError: the worker refused it; or it died, with the end of its log.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        problem = json.loads(line)["problem"]
        if problem is not None:
            raise UserError(problem)

    def run(self, phase: str, job: Mapping[str, Any]) -> None:
        """`submit` and `wait`."""
        self.submit(phase, job)
        self.wait()

    def _fail(self) -> None:
        self._process.wait()
        end = log_end(self.log)
        if "ImportError" in end or "ModuleNotFoundError" in end:
            end += f"; if its environment {self._home} is damaged, remove it and run again"
        raise UserError(f"the evaluation kit failed: {end}")
