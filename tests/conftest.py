"""Settings that all tests share."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two cores may be busy with a server or a trainer: a slow example is not a failure.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what passed once passes in CI. `make test-all` draws new ones.
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")

TOGETHER = ("train", "imports")
"""Folders whose files share what is slow to make (verl on Ray; folders that kits wrote)."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes, one runs all tests of a file, or of a folder of `TOGETHER`.

    Those folders come first: what takes longest may not be left for the end.
    """
    here = Path(__file__).parent

    def group(item: pytest.Item) -> str:
        file = item.path.relative_to(here)
        return file.parts[0] if file.parts[0] in TOGETHER else str(file)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) not in TOGETHER)
