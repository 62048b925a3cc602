"""What this machine has, asked without importing torch."""

from __future__ import annotations

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
    """The GPUs that the NVIDIA driver lists and ``CUDA_VISIBLE_DEVICES`` leaves; none without it.

    Args:
        timeout: seconds for a driver that hangs.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return []
    found = [_gpu(line) for line in listed.stdout.splitlines() if line.count(",") >= 2]
    if listed.returncode != 0:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    # By number or by name (GPU-…): how many there are is what matters here.
    return found[: len([each for each in visible.split(",") if each.strip() not in ("", "-1")])]


def _gpu(line: str) -> Gpu:
    name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
    return Gpu(name, float(memory) / 1024 if memory.isdecimal() else 0.0, driver)


def has_gpu() -> bool:
    """Whether there is a GPU."""
    return bool(gpus())
