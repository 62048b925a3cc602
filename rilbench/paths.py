"""Paths of the models and files that a recipe names; and files that appear whole."""

from __future__ import annotations

import difflib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rilbench.errors import UserError

_SOON = 5.0
"""Seconds for which a file is waited for that another process is writing."""

NANO_VARIABLE = "RILBENCH_NANO"
"""Environment variable: a folder of ``rilbench nano build``, used instead of the shipped one."""


def nano_folder() -> Path:
    """Return the folder of the nano models and data: `$RILBENCH_NANO`, else the shipped one."""
    folder = os.environ.get(NANO_VARIABLE)
    return Path(folder) if folder else Path(__file__).resolve().parent / "nano" / "assets"


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``rilbench`` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "rilbench"


def locate(name: str, setting: str = "student.model") -> Path:
    """Return the path of a model or data file that a recipe names.

    Args:
        name: a path, ``nano:NAME``, or a model's hub name (``Qwen/…``), which is looked for where
            ``hf download`` puts it. Nothing is downloaded.
        setting: the setting that gave the name, or the command's option (``--model``), for the
            remedy; "": an argument.

    Raises:
        UserError: it is not on this machine.
    """
    is_option = setting.startswith("--")
    example = f"{setting} PATH" if is_option else f"--set {setting}=PATH"
    if not name:
        which = f"{setting} is empty" if is_option else f"the recipe has no {setting}"
        raise UserError(f"{which}; give one with {example}")
    if name.startswith("nano:"):
        return _locate_nano(name.removeprefix("nano:"))
    path = Path(name)
    if _exists(path):
        return path.resolve()
    is_hub_name = _HUB_NAME.fullmatch(name) is not None
    if is_hub_name and (downloaded := _downloaded(name)) is not None:
        return downloaded
    if "model" not in setting:
        near = difflib.get_close_matches(path.name, _names(path.parent), n=1)
        hint = f" (there is {path.parent / near[0]})" if near else ""
        raise UserError(
            f"{name} does not exist{hint}; give a file of questions"
            + (f", e.g. {example}" if setting else "")
        )
    remedy = f"run: hf download {name}; or give" if is_hub_name else "download it and give"
    raise UserError(f"{name} is not on this machine; {remedy} its folder, e.g. {example}")


def _locate_nano(name: str) -> Path:
    folder = nano_folder()
    path = folder / name
    if not _exists(path):
        other = {"benchmarks", "manifest.json"}
        known = [n for n in sorted(_names(folder)) if n not in other and not n.startswith(".")]
        build = f"run: rilbench nano build --out {folder}"
        remedy = f"choose from {', '.join(known)}" if known else build
        raise UserError(f"{path} does not exist; {remedy}")
    return path


def _exists(path: Path) -> bool:
    """Whether a file or folder exists; a name that none can have, such as a long one, does not."""
    try:
        return path.exists()
    except OSError:
        return False


def locate_files(name: str, setting: str = "") -> list[Path]:
    """Return the paths of files of questions: names and patterns (``data/*.parquet``), by commas.

    Args:
        name: of one or several, each as `locate` takes it.
        setting: the setting that gave the name, for the remedy; "": an argument.

    Raises:
        UserError: one is not on this machine, or no file matches a pattern.
    """
    if name and _exists(Path(name)):  # its own name may have a comma or a bracket
        return [_named(Path(name))]
    paths: list[Path] = []
    for part in filter(None, map(str.strip, name.split(","))):
        if not set(part) & set("*?["):
            paths.append(_named(Path(part)) if _exists(Path(part)) else locate(part, setting))
            continue
        anchor = Path(part).anchor
        found = sorted(Path(anchor).glob(part.removeprefix(anchor)))
        if not found:
            raise UserError(f"no file matches {part}; give another pattern, or a file of questions")
        paths += map(_named, found)
    return paths or [locate(name, setting)]


def _named(file: Path) -> Path:
    """The file without links, unless its name says more: blobs of caches have no ``.jsonl``."""
    target = file.resolve()
    return target if target.suffix == file.suffix else file.absolute()


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if _exists(folder) and folder.is_dir() else []


_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def public_name(place: str, instead: str = "") -> str:
    """A model's or file's name as others know it: that on the hub or of the nano sandbox.

    Args:
        place: as a recipe names it.
        instead: for a path of this machine; "": the last part of it.
    """
    is_known = _HUB_NAME.fullmatch(place) and not _exists(Path(place))
    return place if is_known or place.startswith("nano:") else instead or Path(place).name


def _downloaded(name: str) -> Path | None:
    """The newest download of a hub model in the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True)).resolve()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; the file takes its place only if the body ends without an error.

    Nothing is left over otherwise. The folder must exist.

    Raises:
        IsADirectoryError: a folder is in its place.
        UserError: another process is writing it, and does not end soon.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    part = path.with_name(f".{path.name}.part")
    with _written_alone(part, path):
        try:
            yield part
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _written_alone(part: Path, path: Path) -> Iterator[None]:
    """Keep other processes away from a file that is being written, during the body."""
    until = time.monotonic() + _SOON
    while True:
        with part.open("ab") as file:
            if _locked(file.fileno()):
                # Unless the one that wrote it before has just moved it to its place.
                if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    yield
                    return
            elif time.monotonic() > until:
                raise UserError(
                    f"another process is writing {path}; wait for its end, or give another file"
                )
        time.sleep(0.05)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True


def may_write(path: Path) -> bool:
    """Whether a file may be written. A read-only mode counts for root too."""
    anyone = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return bool(path.stat().st_mode & anyone) and os.access(path, os.W_OK)
