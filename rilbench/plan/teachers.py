"""What collecting the teachers' responses takes: tokens and price, and the servers to start."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.saved_responses import STUDENT, plan_collection
from rilbench.plan.server_layout import ServerLayout, server_layout
from rilbench.serving.server import server_command


@dataclass(frozen=True)
class TeacherTokens:
    """The tokens of one teacher's responses, by the assumed lengths, and their price."""

    responses: int
    prompt_tokens: float
    response_tokens: float
    price: float | None
    """In the currency of ``collection.price``; None where none is given."""


def plan_server(recipe: Recipe, name: str, model: str) -> ServerLayout:
    """Return how ``train`` serves a teacher on the devices of one node.

    Args:
        recipe: with the hardware.
        name: the teacher's name in the recipe.
        model: its folder or hub name.
    """
    if recipe.hardware.device == "cpu":
        return ServerLayout()
    # All that a request does not say is neutral, and not what the model's own files suggest.
    arguments = ["--generation-config", "vllm"]
    arguments += shlex.split(recipe.collection.serve.get(name, ""))
    return server_layout(model, recipe.hardware.devices, recipe.hardware.memory_gib, arguments)


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
