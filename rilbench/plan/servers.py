"""The servers that a run starts itself: how each uses the devices, and its command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.judge.code_judges import decides_by_code
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.fit import SERVED_SHARE
from rilbench.plan.memory import GIB
from rilbench.serving.server import server_command

_STARTING = 600.0  # seconds that vLLM takes to compile, capture graphs and warm up, at most
_DISK = 1e8  # bytes per second of a slow disk
_UNKNOWN_BYTES = 150e9  # of a model whose layout is not known here


@dataclass(frozen=True)
class ServerPlan:
    """How a model is served on devices of one node."""

    tensor_parallel: int
    data_parallel: int
    start_limit: float
    """Seconds within which it must answer."""
    arguments: tuple[str, ...]
    """Further options of ``vllm serve``."""
    name: str = ""
    """The name to ask for; "": the model's folder."""


def plan_teacher(recipe: Recipe, name: str, model: str) -> ServerPlan:
    """Return how to serve a teacher, or the student: on all devices, since nothing else runs then.

    Args:
        recipe: with the hardware.
        name: the teacher's name in the recipe.
        model: its folder or hub name.
    """
    options = recipe.collection.serve.get(name, "")
    return _plan(recipe, model, recipe.hardware.node_devices, options)


def starts_judge(recipe: Recipe) -> bool:
    """Whether the judge is a language model that the run has to start: on GPUs, at no address."""
    judge = recipe.judge
    is_needed = recipe.method_spec.is_rl and not judge.url and not decides_by_code(judge.model)
    return is_needed and recipe.hardware.device == "cuda"


def plan_judge(recipe: Recipe, model: str) -> ServerPlan:
    """Return how to serve the judge on the devices that are left to it.

    Args:
        recipe: one that `starts_judge` and has what `judge_needs`.
        model: its folder or hub name.
    """
    devices, judge = recipe.hardware.judge_devices, recipe.judge
    return _plan(recipe, model, devices, judge.serve, judge.model)


def judge_needs(recipe: Recipe) -> str:
    """Return what is missing for a judge, in one line with its remedy; "" if nothing is."""
    judge, hardware = recipe.judge, recipe.hardware
    if judge.url or decides_by_code(judge.model) or not recipe.method_spec.is_rl:
        return ""
    served = "serve it and set judge.url=URL"
    if not starts_judge(recipe):
        return f"the judge, {judge.model}, needs an address: --set judge.url=URL"
    if hardware.nodes > 1 or hardware.ray_address:
        return (
            f"the judge, {judge.model}, is not started: that is done on a single node, without a "
            f"Ray of yours; {served}"
        )
    if not hardware.judge_devices:
        return (
            f"the judge, {judge.model}, is not started: {hardware.profile} trains on all "
            f"{hardware.devices} devices; leave some (--hardware 1x8-80gb-judge, or "
            f"hardware.devices and hardware.judge_devices), or {served}"
        )
    try:
        size = 2 * find_architecture(judge.model).parameters / GIB
    except UserError:
        return ""
    if size > SERVED_SHARE * hardware.judge_devices * hardware.memory_gib:
        return (
            f"the judge, {judge.model}, is {size:.0f} GiB in bf16, and hardware.judge_devices="
            f"{hardware.judge_devices} of {hardware.memory_gib} GiB; raise it, or {served}"
        )
    return ""


def judge_line(recipe: Recipe) -> str:
    """Return who judges where, and what is started for it when."""
    judge = recipe.judge
    if judge.url:
        return f"judge: {judge.model}, asked at {', '.join(judge.url)}"
    if not starts_judge(recipe):
        return f"judge: {judge.model}"
    if needs := judge_needs(recipe):
        return needs
    server = plan_judge(recipe, judge.model)
    return (
        f"judge: started before the loop on {recipe.hardware.judge_devices} further devices, up "
        f"within {server.start_limit / 60:.0f} min, stopped after it: "
        f"{command_line(recipe, judge.model, server)}"
    )


def command_line(recipe: Recipe, model: str, server: ServerPlan) -> str:
    """Return how a server is started, but for its address."""
    cpu = recipe.hardware.device == "cpu"
    command = server_command(
        model,
        device=recipe.hardware.device,
        dtype="float32" if cpu else "auto",
        vllm=None if cpu else Path("python"),
        tensor_parallel=server.tensor_parallel,
        data_parallel=server.data_parallel,
        name=server.name,
        arguments=server.arguments,
    )
    return shlex.join(command)


def _plan(recipe: Recipe, model: str, devices: int, options: str, name: str = "") -> ServerPlan:
    """Divide a model as little as it fits, and copy it on what is left."""
    if recipe.hardware.device == "cpu":
        return ServerPlan(1, 1, 180.0, ())
    # All that a request does not say is neutral, and not what the model's own files suggest.
    arguments = ("--generation-config", "vllm", *shlex.split(options))
    try:
        shape = find_architecture(model)
    except UserError:
        seconds = _STARTING + _UNKNOWN_BYTES / _DISK
        return ServerPlan(devices, 1, seconds, arguments, name)
    tensor = _tensor_parallel(shape, devices, recipe.hardware.memory_gib)
    seconds = _STARTING + 2 * shape.parameters / _DISK
    return ServerPlan(tensor, devices // tensor, seconds, arguments, name)


def _tensor_parallel(model: Architecture, devices: int, memory_gib: int) -> int:
    """The fewest devices that hold the model and leave room for its cache."""
    sizes = [n for n in range(1, devices + 1) if devices % n == 0 and model.splits(n)]
    room = 0.8 * SERVED_SHARE * memory_gib * GIB
    return next((n for n in sizes if 2 * model.parameters <= room * n), sizes[-1])
