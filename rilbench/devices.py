"""The GPUs of this machine and their attention, without importing torch."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass

_FIELDS = "name,memory.total,driver_version"


@dataclass(frozen=True)
class Gpu:
    """One of this machine's GPUs."""

    name: str
    memory_gib: float
    driver: str


def gpus(timeout: float = 30.0) -> list[Gpu]:
    """Return the GPUs that the NVIDIA driver lists and ``CUDA_VISIBLE_DEVICES`` allows.

    Args:
        timeout: seconds to wait for a driver that hangs.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return []
    if listed.returncode != 0:
        return []
    devices = []
    for line in listed.stdout.splitlines():
        if line.count(",") >= 2:
            name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
            gib = float(memory) / 1024 if memory.isdecimal() else 0.0
            devices.append(Gpu(name, gib, driver))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    # By number or by name (GPU-…): only their count matters here.
    return devices[: len([name for name in visible.split(",") if name.strip() not in ("", "-1")])]


def least_capability(timeout: float = 30.0) -> float | None:
    """The lowest CUDA compute capability of this machine's GPUs; None where no driver tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=timeout, check=True)
        return min(map(float, told.stdout.split()), default=None)
    except (subprocess.SubprocessError, ValueError):  # an old driver, or a broken one
        return None


def some_gpus(first: int, number: int) -> str:
    """``CUDA_VISIBLE_DEVICES`` with so many of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(first + number)))
    return ",".join(names[first : first + number])


def has_gpu() -> bool:
    """Whether this machine has a GPU."""
    return bool(gpus())


def flash_attention_version() -> str | None:
    """The installed version of the package flash-attn; None without it."""
    try:
        return importlib.metadata.version("flash-attn")
    except importlib.metadata.PackageNotFoundError:
        return None


def attention_on_gpus() -> str:
    """Which attention trains on GPUs: flash-attn's, or torch's own where that is not installed."""
    version = flash_attention_version()
    if version is not None:
        return f"flash-attn {version}"
    return "torch.nn.attention.varlen (FlashAttention 2 of torch itself; flash-attn not installed)"
