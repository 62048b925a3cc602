"""All of it, and what a recipe needs beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from rilbench.api_keys import endpoint_key, judge_key
from rilbench.config import Recipe, load_recipe
from rilbench.doctor import machine
from rilbench.doctor import servers as reach
from rilbench.doctor.finding import Finding, tried
from rilbench.errors import UserError
from rilbench.paths import locate


def examine(
    recipe: str | None,
    student: str | None,
    settings: Sequence[str],
    judge: str | None,
    endpoints: Sequence[str],
) -> list[Finding]:
    """Look at everything once.

    Args:
        recipe: one whose needs are looked at too; None for the machine alone.
        student: the recipe's.
        settings: the recipe's, as ``key=value``.
        judge: ``[MODEL@]URL`` of a judge that must answer.
        endpoints: the same of servers.

    Raises:
        UserError: there is no such recipe, student or setting; or they are given without a recipe.
    """
    if recipe is None and (student or settings):
        raise UserError("--student and --set belong to a recipe; give --recipe too")
    wanted = load_recipe(recipe, student, None, settings) if recipe else None
    found = [
        *machine.python_and_packages(),
        *machine.devices(),
        *machine.kits(),
        *machine.disks(),
        reach.hub(),
        *reach.keys(),
    ]
    remedy = "start it, or give another"
    if judge:
        found.append(reach.server("judge", judge, judge_key(), remedy))
    found += [reach.server("endpoint", each, endpoint_key(), remedy) for each in endpoints]
    return [*found, *(_needs(wanted) if wanted else [])]


def _needs(recipe: Recipe) -> Iterator[Finding]:
    """What a run of the recipe starts from, without reading models' weights."""
    from rilbench.train.verl.ray_devices import check_devices

    def devices() -> str:
        check_devices(recipe)
        hardware = recipe.hardware
        if hardware.device == "cpu" and not hardware.ray_address:
            return "a CPU is enough"
        return f"{hardware.nodes} nodes of {hardware.devices} GPUs are there"

    yield tried("recipe: devices", devices)
    places = {
        "student.model": recipe.student.model,
        "data.train": recipe.data.train,
        "data.dev": recipe.data.dev,
    }
    places |= {"sft.data": recipe.sft.data} if recipe.sft.data else {}
    teachers = (
        recipe.teachers.models if recipe.method_spec.uses_teachers or recipe.sft_on_teachers else {}
    )
    used = {name: teachers[name] for name in recipe.teachers.names if name in teachers}
    served = recipe.collection.endpoints
    places |= {f"teachers.models.{n}": model for n, model in used.items() if n not in served}
    for name, place in places.items():
        yield tried(f"recipe: {name}", partial(_found, place))
    for name, model in used.items():
        if name in served:
            option = served[name] if "@" in served[name] else f"{model}@{served[name]}"
            remedy = f"start it, or set collection.endpoints.{name}=MODEL@URL"
            yield reach.server(f"recipe: {name}", option, endpoint_key(), remedy)
    if recipe.method_spec.is_rl:
        if recipe.judge.url:
            model = "" if recipe.judge.model == "rule" else f"{recipe.judge.model}@"
            remedy = "start it, or set judge.url and judge.model"
            yield reach.server("recipe: judge", model + recipe.judge.url, judge_key(), remedy)
        else:
            yield tried("recipe: judge", partial(_own_judge, recipe))


def _found(place: str) -> str:
    return str(locate(place))


def _own_judge(recipe: Recipe) -> str:
    from rilbench.train.pipeline.preflight import check_judge

    check_judge(recipe)
    return "the project's own rules"
