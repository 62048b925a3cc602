"""One start of verl at a time on a machine without GPUs.

Two at once run into Ray's time limits on few cores. A GPU machine has cores enough, and loads
models for minutes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rilbench.errors import UserError
from rilbench.scratch import user_folder

MINUTES = 20.0
"""Longest wait for another run's start, which takes one or two minutes."""


@contextmanager
def one_start_at_a_time(
    run_dir: Path, tell: Callable[[str], None], minutes: float = MINUTES
) -> Iterator[None]:
    """Wait until no other run of this user starts; keep others waiting during the body.

    Args:
        run_dir: the run's folder, which the others are told.
        tell: takes a line that says for whom this start waits.
        minutes: longest wait.

    Raises:
        UserError: the other start takes longer.
    """
    folder = user_folder()
    lock, holder = FileLock(folder / "verl-start.lock"), folder / "verl-start.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"waiting for the start of {_holder(holder)}, at most {minutes:g} minutes")
        try:
            lock.acquire(timeout=60 * minutes)
        except Timeout as error:
            raise UserError(
                f"{_holder(holder)} has not started within {minutes:g} minutes; see its "
                "logs/trainer.log and end it if it hangs"
            ) from error
    try:
        holder.write_text(json.dumps({"run": str(run_dir), "pid": os.getpid()}), encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(file: Path) -> str:
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return f"{about['run']} (process {about['pid']})"
    except (OSError, ValueError, LookupError):  # it is being written
        return "another run"
