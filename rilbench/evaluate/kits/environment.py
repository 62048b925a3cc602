"""Make a kit's environment on first use, from its own pinned list.

An environment is a folder named after the kit, its lock file and the Python version. It is built
under another name and renamed when complete, so that one half built is never used. A list of its
packages is kept in it, so that one half deleted is noticed and built again.
"""

import fcntl
import hashlib
import logging
import os
import platform
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
from rilbench.paths import cache_folder
from rilbench.resources import resource

Report = Callable[[str], None]

_COMPLETE = "complete.txt"
"""File in an environment: what its folder of packages holds, one name a line."""

_log = logging.getLogger(__name__)


def kits_folder() -> Path:
    """Return the folder of environments: ``$RILBENCH_KITS``, else one in the user's cache."""
    if chosen := os.environ.get("RILBENCH_KITS"):
        return Path(chosen).expanduser().absolute()
    return cache_folder() / "kits"


def environment_name(kit: str, lock: Path) -> str:
    """Return ``<kit>-<12 hex digits>`` of the lock file's content and Python's version."""
    digest = hashlib.sha256(lock.read_bytes() + platform.python_version().encode())
    return f"{kit}-{digest.hexdigest()[:12]}"


def ensure_environment(
    kit: str, on_progress: Report = lambda _: None, *, lock: Path | None = None
) -> Path:
    """Return the Python of a kit's environment, which is built on first use.

    Args:
        kit: name of the kit; ``requirements/<kit>.lock`` lists what it needs.
        on_progress: called with one line at a time while building.
        lock: another list of requirements.

    Raises:
        UserError: the kit is unknown, there is no uv, or uv failed (with the end of its output).
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
            if not is_complete(home):
                _build(home, lock, on_progress)
    except OSError as error:
        raise UserError(
            f"cannot make the environment of {kit} in {root} ({error}); "
            "set RILBENCH_KITS to a folder with room"
        ) from error
    return python


def existing_environment(kit: str) -> Path | None:
    """Return the Python of a kit's environment; None if it was not made yet."""
    home = kits_folder() / environment_name(kit, resource(f"requirements/{kit}.lock"))
    return home / "bin" / "python" if is_complete(home) else None


def is_complete(home: Path) -> bool:
    """Return whether an environment has its Python and every package that it was made with."""
    try:
        names = (home / _COMPLETE).read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (home / "bin" / "python").exists() and _packages(home) >= set(names)


def _packages(home: Path) -> set[str]:
    """Return the names in the folder of packages, without caches."""
    return {
        path.name for path in home.glob("lib/python*/site-packages/*") if path.name != "__pycache__"
    }


def _build(home: Path, lock: Path, on_progress: Report) -> None:
    for left_over in home.parent.glob(f"{home.name}.building-*"):
        shutil.rmtree(left_over)  # of a killed build; we hold the lock, so nobody works there
    building = Path(tempfile.mkdtemp(prefix=f"{home.name}.building-", dir=home.parent))
    uv = _uv()
    _log.info("making the environment %s", home)
    on_progress(f"making the environment {home.name} (once, a few minutes without a cache)")
    try:
        venv = building / "env"
        # Relocatable, as it is renamed afterwards.
        _run([uv, "venv", "--relocatable", "--python", sys.executable, str(venv)], on_progress)
        _run([uv, "pip", "sync", "--python", str(venv / "bin" / "python"), str(lock)], on_progress)
        (venv / _COMPLETE).write_text("\n".join(sorted(_packages(venv))), encoding="utf-8")
        if home.is_symlink() or home.is_file():
            home.unlink()
        elif home.exists():  # not complete: its Python or its packages are gone
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
            "fix that, then run again"
        )


def _uv() -> str:
    """Return the uv that is installed with this package, else the one on the PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        path = shutil.which("uv")
    if path is None:
        raise UserError("uv is needed to make a kit's environment; run: python -m pip install uv")
    return path


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
