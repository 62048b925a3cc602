"""What collecting the teachers' responses takes: tokens and price, and the servers to start."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.fit import SERVED_SHARE
from rilbench.plan.memory import GIB
from rilbench.plan.saved_responses import STUDENT, plan_collection
from rilbench.serving.server import server_command

_STARTING = 600.0  # seconds that vLLM takes to compile, capture graphs and warm up, at most
_DISK = 1e8  # bytes per second of a slow disk
_UNKNOWN_BYTES = 150e9  # of a model whose layout is not known here


@dataclass(frozen=True)
class TeacherServer:
    """How ``train`` starts a teacher's server on the devices of one node."""

    tensor_parallel: int
    data_parallel: int
    start_limit: float
    """Seconds within which it must answer."""
    arguments: tuple[str, ...]
    """Further options of ``vllm serve``."""


@dataclass(frozen=True)
class TeacherTokens:
    """The tokens of one teacher's responses, by the assumed lengths, and their price."""

    responses: int
    prompt_tokens: float
    response_tokens: float
    price: float | None
    """In the currency of ``collection.price``; None where none is given."""


def plan_server(recipe: Recipe, name: str, model: str) -> TeacherServer:
    """Return how to serve a teacher: divided as little as it fits, and copied on what is left.

    Args:
        recipe: with the hardware.
        name: the teacher's name in the recipe.
        model: its folder or hub name.
    """
    devices, memory = recipe.hardware.devices, recipe.hardware.memory_gib
    if recipe.hardware.device == "cpu":
        return TeacherServer(1, 1, 180.0, ())
    # All that a request does not say is neutral, and not what the model's own files suggest.
    arguments: tuple[str, ...] = ("--generation-config", "vllm")
    arguments += tuple(shlex.split(recipe.collection.serve.get(name, "")))
    try:
        shape = find_architecture(model)
    except UserError:
        return TeacherServer(devices, 1, _STARTING + _UNKNOWN_BYTES / _DISK, arguments)
    tensor = _tensor_parallel(shape, devices, memory)
    seconds = _STARTING + 2 * shape.parameters / _DISK
    return TeacherServer(tensor, devices // tensor, seconds, arguments)


def _tensor_parallel(model: Architecture, devices: int, memory_gib: int) -> int:
    """The fewest devices that hold the model and leave room for its cache."""
    sizes = [n for n in range(1, devices + 1) if devices % n == 0 and model.splits(n)]
    room = 0.8 * SERVED_SHARE * memory_gib * GIB
    return next((n for n in sizes if 2 * model.parameters <= room * n), sizes[-1])


def plan_tokens(recipe: Recipe, assumed: Assumptions) -> dict[str, TeacherTokens]:
    """Return the tokens of each teacher; several responses to a request share its prompt."""
    found = {}
    for name, collected in plan_collection(recipe, assumed).items():
        if name == STUDENT:
            continue
        each = collected.asked // assumed.questions
        several = int(recipe.collection.fields.get(name, {}).get("n") or 1)
        prompts = assumed.questions * math.ceil(each / several) * assumed.prompt_tokens
        responses = collected.asked * assumed.response_tokens
        price = recipe.collection.price.get(name)
        cost = None if price is None else (prompts * price[0] + responses * price[1]) / 1e6
        found[name] = TeacherTokens(collected.asked, prompts, responses, cost)
    return found


def teacher_lines(recipe: Recipe, assumed: Assumptions) -> list[str]:
    """Return what is asked of which teacher, where, and what is started for it in which order."""
    lines, before = [], ""
    for name, tokens in plan_tokens(recipe, assumed).items():
        price = "no price given" if tokens.price is None else f"price {tokens.price:,.2f}"
        lines.append(
            f"{name}: {tokens.responses:,} responses, {tokens.prompt_tokens / 1e6:,.3g} M prompt "
            f"and {tokens.response_tokens / 1e6:,.3g} M response tokens ({price})"
        )
        folder, urls = recipe.collection.folder, recipe.collection.endpoints.get(name, ())
        if folder and (Path(folder) / f"{name}.parquet").is_file():
            lines.append(f"{name}: only what {folder}/{name}.parquet lacks is collected")
        if urls:
            lines.append(f"{name}: asked at {', '.join(urls)}")
            continue
        model = recipe.teachers.models[name]
        server = plan_server(recipe, name, model)
        cpu = recipe.hardware.device == "cpu"
        command = server_command(
            model,
            device=recipe.hardware.device,
            dtype="float32" if cpu else "auto",
            vllm=None if cpu else Path("python"),
            tensor_parallel=server.tensor_parallel,
            data_parallel=server.data_parallel,
            arguments=server.arguments,
        )
        when = "started beside the others" if cpu else f"started {before or 'first'}"
        lines.append(
            f"{name}: {when}, up within {server.start_limit / 60:.0f} min, stopped when it is "
            f"collected: {shlex.join(command)}"
        )
        before = f"after {name}"
    return lines
