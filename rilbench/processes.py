"""Child processes that never outlive this one and never die silently."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from rilbench.api_keys import without_keys
from rilbench.scratch import Scratch, user_folder

THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Environment of a training process, which sets its number of threads itself. They must not spin
while they wait, or two processes on two cores spend most of their time on that (an ``exp`` of 700
numbers: 1.4 ms)."""

_log = logging.getLogger(__name__)

# A process between us and the child. Its standard input is a pipe that only we hold: however we
# die, kill -9 included, the pipe closes and the guard kills the whole process group.
_GUARD = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def watch():
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
os._exit(child.wait() & 0xFF)
"""


class GuardedProcess(subprocess.Popen[bytes]):
    """What `start_guarded` returns: the guard, whose group ends when this process does."""

    scratch: Scratch
    """Its temporary folder, removed by `stop_group`."""


def start_guarded(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, keys: bool = True
) -> GuardedProcess:
    """Start a command in a process group of its own, its output in ``log`` (overwritten).

    The group ends when this process does. It has its own ``TMPDIR``. Close the returned process
    with `stop_group`.

    Args:
        command: program and arguments.
        log: file for its output.
        environment: variables in addition to our own.
        keys: pass the user's keys on; only a trainer, which asks a judge, needs one.
    """
    inherited = dict(os.environ) if keys else without_keys(os.environ)
    log.parent.mkdir(parents=True, exist_ok=True)
    _log.debug("starting %s; its log is %s", command[0], log)
    scratch = Scratch()
    inherited.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_folder() / "torchinductor"))
    with log.open("wb") as sink:
        guard = GuardedProcess(
            [sys.executable, "-E", "-S", "-c", _GUARD, *command],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**inherited, **environment, "TMPDIR": str(scratch.path)},
            start_new_session=True,
        )
    guard.scratch = scratch
    return guard


def stop_group(guard: GuardedProcess, patience: float = 5.0) -> None:
    """Send SIGTERM to a process group, and SIGKILL to what is left after ``patience`` seconds.

    Its temporary folder is removed.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(guard.pid, number)
        except ProcessLookupError:
            break
        try:
            guard.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    guard.wait()
    if guard.stdin is not None:
        guard.stdin.close()
    guard.scratch.close()


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU time (user and system) of a process and its descendants, ended ones included.

    An ended descendant counts if its parent waited for it.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0.0
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
