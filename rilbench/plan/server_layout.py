"""How a model's server uses the devices of one machine: by the model's size and their memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.errors import UserError
from rilbench.plan.architecture import find_architecture
from rilbench.plan.fit import SERVED_SHARE
from rilbench.plan.memory import GIB

_STARTING = 600.0  # seconds that vLLM takes to compile, capture graphs and warm up, at most
_DISK = 1e8  # bytes per second of a slow disk
_UNKNOWN_BYTES = 150e9  # of a model whose layout is not known here


@dataclass(frozen=True)
class ServerLayout:
    """How ``vllm serve`` is started on the devices of one machine."""

    tensor_parallel: int = 1
    """Devices among which the model is divided."""
    data_parallel: int = 1
    """Copies of it."""
    start_limit: float = 180.0
    """Seconds within which it must answer."""
    arguments: tuple[str, ...] = ()
    """Further options of ``vllm serve``."""
    name: str = ""
    """The name to ask for; "": the model's folder."""


def server_layout(
    model: str,
    devices: int,
    memory_gib: float,
    arguments: Sequence[str] = (),
    name: str = "",
) -> ServerLayout:
    """Return how to serve a model: divided as little as it fits, and copied on what is left.

    Devices on which neither a part nor a copy fits, as one of seven, are not used.

    Args:
        model: its folder or hub name.
        devices: GPUs of the machine.
        memory_gib: of each.
        arguments: further options of ``vllm serve``.
        name: the name to ask for; "": the model's folder.
    """
    stored = _stored_bytes(model)
    try:
        shape = find_architecture(model)
        # Less is stored of a quantized model, more of one in float32, which vLLM does not keep.
        weights = min(2.0 * shape.parameters, stored or math.inf)
        sizes = [n for n in range(1, devices + 1) if shape.splits(n)]
    except UserError:
        weights = stored or _UNKNOWN_BYTES
        sizes = [2**n for n in range(devices.bit_length())]  # as heads divide, as a rule
        sizes = sizes if stored else sizes[-1:]
    room = 0.8 * SERVED_SHARE * memory_gib * GIB  # the rest is for its cache
    tensor = next((n for n in sizes if weights <= room * n), sizes[-1])
    seconds = _STARTING + weights / _DISK
    return ServerLayout(tensor, devices // tensor, seconds, tuple(arguments), name)


def _stored_bytes(model: str) -> float:
    """Return the bytes of the weights in a model's folder; 0 where it is not on this machine."""
    return float(sum(file.stat().st_size for file in Path(model).glob("*.safetensors")))
