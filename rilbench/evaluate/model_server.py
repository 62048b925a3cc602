"""The server of a model under evaluation: started here on all GPUs, unless there is an endpoint."""

from __future__ import annotations

import logging
import resource
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.evaluate.options import EvalOptions
from rilbench.plan.server_layout import ServerLayout, server_layout
from rilbench.serving import ChatClient, serve, several
from rilbench.serving.server import server_command

_LEAST_START_LIMIT = 1800.0  # seconds that vLLM gets to start, unless --start-limit says otherwise
_FEW = 4  # requests in flight for transformers serve, which answers one at a time
_PER_COPY, _MOST_PER_COPY = 32, 256  # for one copy of a model in vLLM, at first and at most
_FIRST, _MOST = 256, 1024  # for all copies
_ONLY_FIT = frozenset(
    {
        "--max-model-len",
        "--gpu-memory-utilization",
        "--enforce-eager",
        "--max-num-seqs",
        "--max-num-batched-tokens",
        "--tensor-parallel-size",
        "--data-parallel-size",
        "--pipeline-parallel-size",
        "--swap-space",
        "--cpu-offload-gb",
    }
)
"""Options of ``vllm serve`` that decide where and how fast it runs, and not what it answers."""
_log = logging.getLogger(__name__)


def changing_arguments(arguments: Sequence[str]) -> list[str]:
    """Return vLLM's options without those that change no response but for its rounding."""
    kept, keep = [], True
    for argument in arguments:
        if argument.startswith("-"):
            keep = argument.partition("=")[0] not in _ONLY_FIT
        if keep:
            kept.append(argument)
    return kept


def layout_for(options: EvalOptions, model: str) -> ServerLayout:
    """Return how a model is served here: by vLLM on all GPUs, or by ``transformers serve``."""
    if options.vllm is None:
        return ServerLayout(start_limit=options.start_limit or ServerLayout.start_limit)
    layout = server_layout(model, max(options.gpus, 1), options.gpu_gib, options.server_args)
    limit = options.start_limit or max(_LEAST_START_LIMIT, layout.start_limit)
    return ServerLayout(
        layout.tensor_parallel, layout.data_parallel, limit, tuple(options.server_args)
    )


@dataclass(frozen=True)
class InFlight:
    """Requests that go to a model's servers at one time."""

    first: int
    most: int
    """To which they grow while that brings more responses per second."""


def requests_in_flight(options: EvalOptions, copies: int = 1) -> InFlight:
    """Return how many requests go to a model's servers at one time.

    Args:
        options: of the evaluation.
        copies: of the model in a vLLM that is started here.
    """
    if options.concurrency is not None:
        return InFlight(options.concurrency, options.concurrency)
    if options.endpoint is not None:
        copies = len(several(options.endpoint))
    elif options.vllm is None:
        return InFlight(_FEW, _FEW)
    # Each is a connection, and half of the open files are left for the others.
    connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
    first = min(_PER_COPY * copies, _FIRST)
    return InFlight(first, max(first, min(_MOST_PER_COPY * copies, _MOST, connections)))


def _vllm_or_transformers(options: EvalOptions, layout: ServerLayout) -> dict[str, Any]:
    """Return the arguments of `rilbench.serving.server.server_command` for a model."""
    return {
        "device": options.device,
        "dtype": options.dtype,
        "vllm": options.vllm,
        "tensor_parallel": layout.tensor_parallel,
        "data_parallel": layout.data_parallel,
        "arguments": layout.arguments,
    }


def server_line(options: EvalOptions, model: str) -> str:
    """Return what would be started for a model, in a line."""
    layout = layout_for(options, model)
    command = server_command(model, **_vllm_or_transformers(options, layout))
    command[0] = Path(command[0]).name
    devices = "on the CPU"
    if options.device != "cpu":
        used = layout.tensor_parallel * layout.data_parallel
        devices = f"on {used} GPU{'s' * (used > 1)}"
    within = f"up within {layout.start_limit / 60:.0f} min"
    return f"{Path(model).name}: {devices}, {within}: {shlex.join(command)}"


@contextmanager
def started_client(options: EvalOptions, model: Path, log: Path) -> Iterator[ChatClient]:
    """Start a model's server and yield a client of it.

    Args:
        options: of the evaluation.
        model: the checkpoint's folder.
        log: file for the server's output.

    Raises:
        UserError: as `rilbench.serving.serve`.
    """
    if options.device != "cpu" and options.vllm is None:
        _log.warning(
            "this machine has a GPU and no vLLM: transformers serve answers one question at a "
            "time, on one GPU; install rilbench[gpu], or serve the model and give --endpoint"
        )
    layout = layout_for(options, str(model))
    _log.info("%s", server_line(options, str(model)))
    in_flight = requests_in_flight(options, layout.data_parallel)
    with serve(
        model,
        log=log,
        timeout=layout.start_limit,
        option="--server-args",
        **_vllm_or_transformers(options, layout),
    ) as server:
        yield ChatClient(
            server.base_url,
            server.model,
            transformers=server.transformers,
            concurrency=in_flight.first,
            most=in_flight.most,
        )
