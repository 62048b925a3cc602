"""What collecting the teachers' responses takes: tokens and price, and the servers to start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.numbers import short
from rilbench.plan.saved_responses import STUDENT, plan_collection
from rilbench.plan.servers import command_line, plan_teacher


@dataclass(frozen=True)
class TeacherTokens:
    """The tokens of one teacher's responses, by the assumed lengths, and their price."""

    responses: int
    prompt_tokens: float
    response_tokens: float
    price: float | None
    """In the currency of ``collection.price``; None where none is given."""


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
            f"{name}: {tokens.responses:,} responses, {short(tokens.prompt_tokens / 1e6)} M prompt "
            f"and {short(tokens.response_tokens / 1e6)} M response tokens ({price})"
        )
        folder, urls = recipe.collection.folder, recipe.collection.endpoints.get(name, ())
        if folder and (Path(folder) / f"{name}.parquet").is_file():
            lines.append(f"{name}: only what {folder}/{name}.parquet lacks is collected")
        if urls:
            lines.append(f"{name}: asked at {', '.join(urls)}")
            continue
        model = recipe.teachers.models[name]
        server = plan_teacher(recipe, name, model)
        cpu = recipe.hardware.device == "cpu"
        when = "started beside the others" if cpu else f"started {before or 'first'}"
        lines.append(
            f"{name}: {when}, up within {server.start_limit / 60:.0f} min, stopped when it is "
            f"collected: {command_line(recipe, model, server)}"
        )
        before = f"after {name}"
    return lines
