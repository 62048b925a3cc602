"""All checks of the machine, and of what a recipe needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from rilbench.api_keys import endpoint_key, judge_key
from rilbench.config import Recipe, load_recipe
from rilbench.doctor import machine, servers
from rilbench.doctor.check_result import CheckResult, attempt
from rilbench.errors import UserError
from rilbench.extras import require
from rilbench.judge.code_judges import decides_by_code
from rilbench.paths import locate, locate_files
from rilbench.serving import several


def examine(
    recipe: str | None,
    student: str | None,
    method: str | None,
    hardware: str | None,
    settings: Sequence[str],
    judge: str | None,
    endpoints: Sequence[str],
) -> list[CheckResult]:
    """Run all checks.

    Args:
        recipe: a recipe to check too; None for the machine alone.
        student: the recipe's student.
        method: the recipe's method.
        hardware: the recipe's hardware profile.
        settings: the recipe's settings, as ``key=value``.
        judge: ``[MODEL@]URL`` of a judge that must answer.
        endpoints: ``[MODEL@]URL`` of servers that must answer.

    Raises:
        UserError: an unknown recipe, student, method, hardware or setting, or one without a
            recipe.
    """
    if recipe is None and (student or method or hardware or settings):
        raise UserError(
            "--student, --method, --hardware and --set belong to a recipe; give --recipe too"
        )
    wanted = load_recipe(recipe, student, method, settings, hardware) if recipe else None
    results = [
        *machine.python_and_packages(),
        *machine.devices(),
        *machine.kits(),
        *machine.disks(),
        servers.hub(),
        *servers.keys(),
    ]
    remedy = "start it, or give another"
    if judge:
        results += [servers.server("judge", url, judge_key, remedy) for url in several(judge)]
    results += [
        servers.server("endpoint", url, lambda at: endpoint_key(url=at), remedy)
        for url in endpoints
    ]
    return [*results, *(_check_recipe(wanted) if wanted else [])]


def _locate(place: str, setting: str) -> str:
    return str(locate(place, setting))


def _locate_files(place: str, setting: str) -> str:
    return ", ".join(map(str, locate_files(place, setting)))


def _check_recipe(recipe: Recipe) -> Iterator[CheckResult]:
    """Check the inputs of a run, without reading models' weights."""

    def devices() -> str:
        from rilbench.train.verl.ray_devices import check_devices

        require("train", "training")
        check_devices(recipe)
        hardware = recipe.hardware
        if hardware.device == "cpu" and not hardware.ray_address:
            return "a CPU is enough"
        return f"{hardware.nodes} nodes of {hardware.devices} GPUs are available"

    def own_judge() -> str:
        from rilbench.train.pipeline.preflight import check_judge

        check_judge(recipe)
        return "the project's own rules"

    yield attempt("recipe: devices", devices)
    places = {
        "student.model": recipe.student.model,
        "data.train": recipe.data.train,
        "data.dev": recipe.data.dev,
    }
    places |= {"sft.data": recipe.sft.data} if recipe.sft.data else {}
    uses = recipe.uses_saved_responses or recipe.method_spec.uses_teacher_log_probs
    teachers = recipe.teachers.models if uses else {}
    used = {name: teachers[name] for name in recipe.teachers.names if name in teachers}
    served = recipe.collection.endpoints
    places |= {f"teachers.models.{n}": model for n, model in used.items() if n not in served}
    for name, place in places.items():
        find = _locate_files if name.startswith(("data.", "sft.")) else _locate
        yield attempt(f"recipe: {name}", partial(find, place, name))
    for name, model in used.items():
        remedy = f"start it, or set collection.endpoints.{name}=MODEL@URL"
        for url in served.get(name, ()):
            option = url if "@" in url else f"{model}@{url}"
            yield servers.server(f"recipe: {name}", option, partial(endpoint_key, name), remedy)
    if recipe.method_spec.is_rl:
        if recipe.judge.url:
            model = "" if decides_by_code(recipe.judge.model) else f"{recipe.judge.model}@"
            remedy = "start it, or set judge.url and judge.model"
            for url in recipe.judge.url:
                yield servers.server("recipe: judge", model + url, judge_key, remedy)
        else:
            yield attempt("recipe: judge", own_judge)
