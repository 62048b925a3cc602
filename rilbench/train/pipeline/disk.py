"""Room on the disk for a run, counted before anything is spent."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rilbench.errors import UserError
from rilbench.plan.assumptions import assume
from rilbench.plan.run_plan import make_plan
from rilbench.train.pipeline.run_folder import Run

_GIB = 1 << 30


def check_disk(run: Run, questions: int) -> None:
    """Check that the disk has room for what `rilbench plan` counts and is not there yet.

    A student whose layout cannot be counted is not checked.

    Raises:
        UserError: it has less.
    """
    try:
        disk = make_plan(run.recipe, replace(assume(run.recipe), questions=questions)).disk
    except UserError:
        return
    parts = dict(disk)
    if run.recipe.collection.folder:
        parts.pop("collection", None)
    there = sum(file.stat().st_size for file in run.folder.rglob("*") if file.is_file())
    needed, free = sum(parts.values()) - there, shutil.disk_usage(_existing(run.folder)).free
    if needed > free:
        largest = max(parts, key=lambda name: parts[name])
        raise UserError(
            f"{run.folder} needs {needed / _GIB:.1f} GiB more (most for {largest}: "
            f"{parts[largest] / _GIB:.1f}) and {free / _GIB:.1f} are free; make room, give --runs "
            "a larger disk, or keep fewer steps with schedule.keep"
        )


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())
