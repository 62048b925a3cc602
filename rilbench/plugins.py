"""Extensions: functions in files of the user's, and entry points of other installed packages.

A setting names a function in a file as ``FILE.py:FUNCTION``.

A package extends rilbench by an entry point in one of these groups:

``rilbench.benchmarks``: a package with benchmark files (``*.toml``).
``rilbench.rewards``: a reward function (`rilbench.ril.rewards`).
``rilbench.judges``: a judge function (`rilbench.judge`).
``rilbench.students``: a package with student recipes (``*.yaml``); a file's name is the student's.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rilbench.errors import UserError


def load_plugins(group: str) -> dict[str, Any]:
    """Return the objects that the entry points of ``group`` name, by entry point.

    Raises:
        UserError: an entry point cannot be imported, or two have the same name.
    """
    plugins: dict[str, Any] = {}
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        package = point.dist.name if point.dist else "an unnamed package"
        if point.name in plugins:
            raise UserError(
                f"{group}: {point.name!r} is provided twice, also by {package}; uninstall one"
            )
        try:
            plugins[point.name] = point.load()
        except Exception as error:  # a plug-in may raise anything while it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"{group}: {point.name!r} of {package} cannot be loaded ({reason}); fix or "
                f"uninstall {package}"
            ) from error
    return plugins


def load_function(path: Path, function: str, setting: str) -> Any:
    """Return a function of a Python file, which is run for it.

    Args:
        path: the file.
        function: the function's name.
        setting: what names it, as the beginning of an error.

    Raises:
        UserError: there is no such file or function, or the file cannot be imported.
    """
    if not path.is_file():
        raise UserError(f"{setting}: there is no file {path}; give its path from here")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{setting}: {path} is not a Python file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a file of the user's may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{setting}: {path} cannot be imported ({reason}); fix it") from error
    if not hasattr(module, function):
        raise UserError(f"{setting}: {path} has no function {function!r}")
    found = getattr(module, function)
    if not callable(found):
        raise UserError(f"{setting}: {path}:{function} is not a function; name one of the file's")
    return found
