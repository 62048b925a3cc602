"""Make a kit's environment on first use, from its own pinned list.

An environment is a folder named after the kit, its lock file and the Python version. It is built
beside its final place and renamed when complete, so that one half built is never used. What it
then holds is written down in it, so that one half deleted is seen and built again.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rilbench.api_keys import without_keys
from rilbench.errors import UserError
from rilbench.resources import resource

Report = Callable[[str], None]

_COMPLETE = "complete.txt"
"""In an environment: what its folder of packages holds, a name in each line."""
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)$", re.MULTILINE)
"""A package that the lock file wants on every machine."""


def kits_folder() -> Path:
    """Where environments live: ``$RILBENCH_KITS``, else in the user's cache folder."""
    if chosen := os.environ.get("RILBENCH_KITS"):
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "rilbench" / "kits"


def environment_name(kit: str, lock: Path) -> str:
    """``<kit>-<12 hex digits>`` of the lock file's content and Python's version."""
    digest = hashlib.sha256(lock.read_bytes() + platform.python_version().encode())
    return f"{kit}-{digest.hexdigest()[:12]}"


def ensure_environment(
    kit: str, on_progress: Report = lambda _: None, *, lock: Path | None = None
) -> Path:
    """Return the Python of a kit's environment, which is built when it is not there yet.

    Args:
        kit: its name; ``requirements/<kit>.lock`` lists what it needs.
        on_progress: called with one line at a time while building.
        lock: another list of requirements.

    Raises:
        UserError: unknown kit, no uv, or uv failed (with the end of what it said).
    """
    if lock is None:
        try:
            lock = resource(f"requirements/{kit}.lock")
        except FileNotFoundError as error:
            raise UserError(f"no kit {kit!r}: requirements/{kit}.lock is missing") from error
    root = kits_folder()
    home = root / environment_name(kit, lock)
    python = home / "bin" / "python"
    if is_complete(home):
        return python
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _only_builder(root / f"{home.name}.lock", on_progress):
            if not is_complete(home) and not _adopted(home, lock):
                _build(home, lock, on_progress)
    except OSError as error:
        raise UserError(
            f"cannot make the environment of {kit} in {root} ({error}); "
            "set RILBENCH_KITS to a folder with room"
        ) from error
    return python


def is_complete(home: Path) -> bool:
    """Whether an environment has its Python and every package that it was made with."""
    try:
        names = (home / _COMPLETE).read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (home / "bin" / "python").exists() and _packages(home) >= set(names)


def _packages(home: Path) -> set[str]:
    """What the folder of packages holds, but for caches."""
    return {
        path.name for path in home.glob("lib/python*/site-packages/*") if path.name != "__pycache__"
    }


def _note_complete(home: Path) -> None:
    part = home / f"{_COMPLETE}.part"
    part.write_text("\n".join(sorted(_packages(home))), encoding="utf-8")
    part.replace(home / _COMPLETE)


def _adopted(home: Path, lock: Path) -> bool:
    """Take on an environment of before there were notes, if it has what the lock file lists."""
    if (home / _COMPLETE).exists() or not (home / "bin" / "python").exists():
        return False
    found = {re.sub(r"[-_.]+", "-", name).lower() for name in _packages(home)}
    pins = [f"{name}-{version}.dist-info" for name, version in _PINNED.findall(lock.read_text())]
    if not pins or not found >= {re.sub(r"[-_.]+", "-", pin).lower() for pin in pins}:
        return False
    _note_complete(home)
    return True


def _build(home: Path, lock: Path, on_progress: Report) -> None:
    for left_over in home.parent.glob(f"{home.name}.building-*"):
        shutil.rmtree(left_over)  # A killed build's: we hold the lock, so nobody works there.
    building = Path(tempfile.mkdtemp(prefix=f"{home.name}.building-", dir=home.parent))
    uv = _uv()
    on_progress(f"making the environment {home.name} (once, a few minutes without a cache)")
    try:
        venv = building / "env"
        # Relocatable, as it is renamed afterwards.
        _run([uv, "venv", "--relocatable", "--python", sys.executable, str(venv)], on_progress)
        _run([uv, "pip", "sync", "--python", str(venv / "bin" / "python"), str(lock)], on_progress)
        _note_complete(venv)
        if home.is_symlink() or home.is_file():
            home.unlink()
        elif home.exists():  # Not complete: its Python or its packages are gone.
            home.rename(building / "old")
        venv.rename(home)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _run(command: list[str], on_progress: Report) -> None:
    last: deque[str] = deque(maxlen=8)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=without_keys(os.environ),
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if text := line.strip():
                last.append(text)
                on_progress(text)
    if process.returncode:
        raise UserError(
            f"uv could not make the kit's environment: {' | '.join(last)[-800:]}; "
            "mend that, then run again"
        )


def _uv() -> str:
    """The uv that is installed with this package, else the one on the PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if found is None:
        raise UserError("uv is needed to make a kit's environment; run: python -m pip install uv")
    return found


@contextmanager
def _only_builder(path: Path, on_progress: Report) -> Iterator[None]:
    """Hold an exclusive lock; the system releases it even after kill -9."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("another process is making this environment; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
