"""A run seen from another process: only its files are read."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rilbench.data.rollout_groups import SAMPLE_EVERY
from rilbench.scratch import is_locked
from rilbench.train import activity
from rilbench.train.pipeline import progress_record
from rilbench.train.pipeline.progress import TrainingProgress
from rilbench.train.pipeline.run_folder import Run, last_step, stop_reason
from rilbench.train.pipeline.trainer_process import RECORDS, watcher

_RECORDS = {"progress": progress_record.FILE, "sft": "sft/metrics.jsonl", **RECORDS}
_SECONDS_BETWEEN_LOOKS = 1.0
_SILENT_ELSEWHERE = 15 * 60.0
"""Seconds without a change after which a run on another machine, whose lock cannot be seen from
here, no longer goes on."""


def watch(run: Run, progress: TrainingProgress) -> None:
    """Show a run until it ends: a picture of what it has done, then each event as it comes.

    Args:
        run: its folder may be of another machine.
        progress: silent, so that what was done before has no lines of its own.
    """
    host = ""

    def on_line(kind: str, values: Mapping[str, Any]) -> None:
        nonlocal host
        if kind == "progress":
            host = values.get("host", host)
            _replay(progress, values)
        else:
            more = {"of": run.recipe.sft.steps} if kind == "sft" else {}
            progress.line(kind, {**values, **more})

    def end() -> None:
        progress.last_event = _last_change(run.folder)
        progress.ended = how_it_ended(run)

    look = watcher(run.folder, on_line, _RECORDS, from_start=True)
    look()
    if progress.steps_done:
        last = progress.steps_done[-1]["step"]
        progress.show_sample(last - last % SAMPLE_EVERY or 1)
    if not _goes_on(run.folder, host):
        end()
        progress.picture()
        return
    progress.picture()
    progress.is_silent = False
    while _goes_on(run.folder, host):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        look()
    look()
    end()
    progress.say(progress.ended)


def how_it_ended(run: Run) -> str:
    """One line about a run that no process works on."""
    if run.finished:
        return f"finished: {run.checkpoint}"
    step, why = last_step(run), stop_reason(run)
    saved = f"saved is step {step}" if step else "no step is saved"
    return f"not going on, {saved}; --resume continues it" + (f" ({why})" if why else "")


def _replay(progress: TrainingProgress, event: Mapping[str, Any]) -> None:
    progress.last_event = event["time"]
    if "begin" in event:
        progress.begin(event["begin"], event["time"])
    elif "stage" in event:
        progress.stage(event["stage"], event["state"])
    elif "model" in event:
        progress.answers(event["model"], event["done"], event["total"])
    else:
        progress.note(event["note"])


def _goes_on(folder: Path, host: str) -> bool:
    """Whether a process works on a run."""
    if not host or host == socket.gethostname():
        return is_locked(folder / ".lock")
    return time.time() - _last_change(folder) < _SILENT_ELSEWHERE


def _last_change(folder: Path) -> float:
    """When a run was last heard of, in seconds since the epoch; 0: never."""
    files = [folder / name for name in (*_RECORDS.values(), activity.FILE)]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
