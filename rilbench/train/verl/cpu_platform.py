"""A CPU platform for verl, found by verl through the entry point group ``verl.plugins``.

verl looks for accelerators only. This registers a platform named ``cpu`` that it picks when there
is none, so that the same trainer runs on a laptop and in CI. Nothing of verl is overwritten.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _device_module() -> types.ModuleType:
    """What ``torch.cuda`` is to a GPU: verl asks it for memory and random state."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def zero(*_: Any, **__: Any) -> int:
        return 0

    module = types.ModuleType("rilbench_cpu_device")
    functions: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_: "cpu",
        "mem_get_info": lambda *_: (
            psutil.virtual_memory().available,
            psutil.virtual_memory().total,
        ),
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "max_memory_allocated": lambda *_: psutil.Process().memory_info().rss,
        "memory_allocated": lambda *_: psutil.Process().memory_info().rss,
    }
    for name in ("current_device", "memory_reserved", "max_memory_reserved"):
        functions[name] = zero
    for name in ("set_device", "synchronize", "empty_cache", "ipc_collect"):
        functions[name] = nothing
    for name in ("reset_peak_memory_stats", "reset_accumulated_memory_stats"):
        functions[name] = nothing
    for name, function in functions.items():
        setattr(module, name, function)
    return module


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """verl's idea of a device, answered for the host's processor."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        """A processor is always there."""
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """Whether verl should choose it by itself: asked last, so only where nothing else is."""
        return use_smi_check and not torch.cuda.is_available()

    def current_device(self) -> str:
        """verl hands this to ``Tensor.to``."""
        return "cpu"

    def device_count(self) -> int:
        """One device."""
        return 1

    def set_device(self, device_index: int) -> None:
        """There is only one."""

    def synchronize(self, device_index: int | None = None) -> None:
        """Everything is synchronous."""

    def manual_seed(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        """Seed torch."""
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        """No allocator to set."""

    def empty_cache(self) -> None:
        """No cache to empty."""

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        """None: it is not a CUDA device."""
        return None, None

    def communication_backend_name(self) -> str:
        """Collectives run over gloo."""
        return "gloo"

    def visible_devices_envvar(self) -> str:
        """A name that nothing else reads."""
        return "RILBENCH_CPU_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        """Ray's logical ``GPU``: the run declares as many as it wants ranks."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        """Nothing to keep Ray from setting."""
        return []

    def is_ipc_supported(self) -> bool:
        """No device memory to share."""
        return False

    def cudart(self) -> None:
        """No CUDA run time."""

    def profiler_start(self) -> None:
        """No device profiler."""

    def profiler_stop(self) -> None:
        """No device profiler."""

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        """No ranges to mark."""
        yield
