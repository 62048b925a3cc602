"""Where things lie: model and data names of a recipe as paths."""

from __future__ import annotations

import os
from pathlib import Path

from rilbench.errors import UserError

NANO_VARIABLE = "RILBENCH_NANO"
"""A folder built by ``rilbench nano build``, instead of the one that ships with the package."""


def nano_folder() -> Path:
    """The laboratory's models and data: `$RILBENCH_NANO`, else what ships with the package."""
    chosen = os.environ.get(NANO_VARIABLE)
    return Path(chosen) if chosen else Path(__file__).resolve().parent / "nano" / "assets"


def locate(name: str) -> Path:
    """A model folder or data file by its name in a recipe: a path, or ``nano:NAME``.

    Raises:
        UserError: it is not there. A hub name (``Qwen/…``) has to be downloaded first.
    """
    if not name:
        raise UserError("the recipe has no data; set data.train and data.dev to files of questions")
    if name.startswith("nano:"):
        path = nano_folder() / name.removeprefix("nano:")
        if not path.exists():
            raise UserError(f"{path} does not exist; run: rilbench nano build --out {path.parent}")
        return path
    path = Path(name)
    if not path.exists():
        raise UserError(
            f"{name} is not on this machine; download it and give its folder, "
            "e.g. --set student.model=PATH"
        )
    return path.resolve()
