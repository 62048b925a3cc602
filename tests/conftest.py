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

# Two cores may be busy with a server or a trainer: a slow example is not a failure.
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what passed once passes in CI. `make test-all` tries new ones.
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")

TESTS = Path(__file__).parent

VERL = (
    "examples/test_ril_minimal.py",
    "lab/test_warm_session.py",
    "train/pipeline/test_sft.py",
    "train/test_failed_questions.py",
    "train/test_internvl.py",
    "train/test_nodes.py",
    "train/test_own_model.py",
    "train/test_ranks.py",
    "train/test_rehearsal.py",
    "train/test_reshard.py",
    "train/test_run.py",
    "train/test_variants.py",
    "train/test_world_size.py",
    "train/verl/test_gpu_configuration.py",
    "train/verl/test_model_families.py",
    "train/verl/test_packed.py",
    "train/verl/test_ray_devices.py",
    "whole_run/test_execute.py",
)
"""Files that start verl; `tests/all.py` runs them one after another."""

IN_MAKE_TEST = ("train/test_run.py",)
"""The one real short run of the loop, with its kill and resume."""

INTEGRATION = (
    *(file for file in VERL if file not in IN_MAKE_TEST),
    "check/test_commands.py",
    "data/test_response_collector.py",
    "doctor/test_doctor.py",
    "evaluate/kits",
    "evaluate/test_bad_endpoints.py",
    "evaluate/test_batch_engine.py",
    "evaluate/test_kills.py",
    "evaluate/test_own_benchmark.py",
    "evaluate/test_run.py",
    "evaluate/test_stale.py",
    "gpu",
    "importers",
    "lab/test_report.py",
    "nano/test_build.py",
    "nano/test_kit.py",
    "report/test_browser.py",
    "serving/test_server.py",
    "test_dockerfile.py",
    "test_interruption.py",
    "test_packaging.py",
    "test_wheel.py",
    "train/pipeline/test_started_teachers.py",
    "train/verl/test_saved_weights.py",
)
"""Files and folders that start toolkits, servers, Chromium or more trainings."""


def within(file: str, places: tuple[str, ...]) -> bool:
    """Whether a test file is one of these files, or in one of these folders."""
    return any(file == place or file.startswith(f"{place}/") for place in places)


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
