"""Extensions from other installed packages, found through entry points.

A package extends rilbench by an entry point in one of these groups:

``rilbench.benchmarks``: a package of benchmark files (``*.toml``).
``rilbench.rewards``: a reward function (`rilbench.ril.rewards`).
``rilbench.judges``: a judge function (`rilbench.judge`).
``rilbench.students``: a package of student recipes (``*.yaml``).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from rilbench.errors import UserError


def load_plugins(group: str) -> dict[str, Any]:
    """Return what the entry points of ``group`` point at, by name.

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
        except Exception as error:  # a plugin may raise anything while it is imported
            raise UserError(
                f"{group}: {point.name!r} of {package} cannot be loaded "
                f"({type(error).__name__}: {error}); fix or uninstall {package}"
            ) from error
    return plugins
