"""Settings that all tests share, and the tier of each test.

unit: everything without a marker; `make test` runs it with one real short run of the loop.
integration: starts toolkits, servers, Chromium or several trainings; `make test-integration`.
slow: long, repeated, or with wild input; with all others in `make test-all`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, hub_server
from hypothesis import HealthCheck, settings
from tiers import INTEGRATION, VERL

# Two cores may be busy with a server or a trainer: a slow example is not a failure.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what passed once passes in CI. `make test-all` tries new ones.
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")

TESTS = Path(__file__).parent


def within(file: str, places: tuple[str, ...]) -> bool:
    """Whether a test file is one of these files, or in one of these folders."""
    return any(file == place or file.startswith(f"{place}/") for place in places)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what `make test` deselects: verl and torch take a while in each process."""
    if "not integration" not in config.option.markexpr:
        return None
    return within(collection_path.relative_to(TESTS).as_posix(), INTEGRATION) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tiers, and put the longest files first: they may not be left for the end."""
    for item in items:
        if within(item.path.relative_to(TESTS).as_posix(), INTEGRATION):
            item.add_marker(pytest.mark.integration)
    items.sort(key=lambda item: item.path.relative_to(TESTS).as_posix() not in VERL)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server of the hub's protocol, to which the real client goes."""
    from huggingface_hub import constants

    with hub_server(tmp_path / "hub") as server:
        # What HF_ENDPOINT and HF_HOME set when the client is imported.
        resolve = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "")
        yield server
