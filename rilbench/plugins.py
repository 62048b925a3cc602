"""Extensions from other installed packages, found through entry points.

A package extends rilbench by an entry point in one of these groups:

``rilbench.benchmarks``: a package with benchmark files (``*.toml``).
``rilbench.rewards``: a reward function (`rilbench.ril.rewards`).
``rilbench.judges``: a judge function (`rilbench.judge`).
``rilbench.students``: a package with student recipes (``*.yaml``); a file's name is the student's.
"""

from __future__ import annotations

from importlib.metadata import entry_points
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
