"""Where things lie: model and data names of a recipe as paths."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from rilbench.errors import UserError

NANO_VARIABLE = "RILBENCH_NANO"
"""A folder built by ``rilbench nano build``, instead of the one that ships with the package."""


def nano_folder() -> Path:
    """The laboratory's models and data: `$RILBENCH_NANO`, else what ships with the package."""
    chosen = os.environ.get(NANO_VARIABLE)
    return Path(chosen) if chosen else Path(__file__).resolve().parent / "nano" / "assets"


def locate(name: str) -> Path:
    """A model folder or data file by its name in a recipe: a path, ``nano:NAME``, or a hub name.

    A model by its hub name (``Qwen/…``) is looked for where ``hf download`` puts it.

    Raises:
        UserError: it is not there. Nothing is downloaded here.
    """
    if not name:
        raise UserError("the recipe has no data; set data.train and data.dev to files of questions")
    if name.startswith("nano:"):
        path = nano_folder() / name.removeprefix("nano:")
        if not path.exists():
            raise UserError(f"{path} does not exist; run: rilbench nano build --out {path.parent}")
        return path
    path = Path(name)
    if path.exists():
        return path.resolve()
    if _HUB_NAME.fullmatch(name) and (found := _downloaded(name)) is not None:
        return found
    hub = _HUB_NAME.fullmatch(name) and path.suffix not in (".parquet", ".jsonl", ".json")
    remedy = f"run: hf download {name}; or give" if hub else "download it and give"
    raise UserError(
        f"{name} is not on this machine; {remedy} its folder, e.g. --set student.model=PATH"
    )


_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def _downloaded(name: str) -> Path | None:
    """The hub's model in the local cache, its newest download."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True)).resolve()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def may_write(path: Path) -> bool:
    """Tell whether we may write; root may despite the mode bits, but the owner said no."""
    anyone = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return bool(path.stat().st_mode & anyone) and os.access(path, os.W_OK)
