"""What a run file does, counted without doing any of it: no GPU, no torch."""

from __future__ import annotations

import inspect
import shutil
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rilbench.api_keys import without_query_values
from rilbench.config import Recipe
from rilbench.config.run_file import RunFile
from rilbench.data.build_recipe import DataRecipe, read_data_recipe
from rilbench.data.manifest import whole_of
from rilbench.devices import has_gpu
from rilbench.errors import UserError
from rilbench.evaluate.data import check_converted
from rilbench.evaluate.options import EvalOptions, read_options
from rilbench.evaluate.suite import Suite, find_suite
from rilbench.paths import locate, locate_files
from rilbench.plan import RunPlan, make_plan
from rilbench.plan.assumptions import assume, count_questions
from rilbench.plan.numbers import short
from rilbench.plan.run_plan import stage_hours
from rilbench.plan.saved_responses import STUDENT
from rilbench.plan.servers import judge_needs, starts_judge
from rilbench.train.pipeline.progress_record import planned_stages
from rilbench.whole_run import evaluation_judge

_NOT_IN_A_FILE = {"db", "endpoint", "fields", "fresh", "work"}
"""Options of ``rilbench eval`` that make no sense for the two models of a run."""
MODELS = 2
"""The student before and after training are evaluated."""


def evaluation_options(file: RunFile, db: Path) -> EvalOptions:
    """Return the options of a run file's evaluation, with training's judge if it names none.

    Raises:
        UserError: an unknown option, or a value of another type.
    """
    hints = get_type_hints(read_options)
    known = [name for name in inspect.signature(read_options).parameters if name in hints]
    known = [name for name in known if name not in _NOT_IN_A_FILE]
    values: dict[str, Any] = {}
    for key, value in file.evaluation.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UserError(f"there is no option eval.{key}; there are {', '.join(known)}")
        if value is not None:
            values[name] = _as_kind(hints[name], value, f"eval.{key}")
    return evaluation_judge.with_judge(file, read_options(**values, db=db))


def _as_kind(hint: Any, value: Any, key: str) -> Any:
    """A value from YAML as the type of its option."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not types.NoneType]
    if kinds == [str] and isinstance(value, list):
        return ",".join(map(str, value))
    if kinds == [int] and (isinstance(value, bool) or not isinstance(value, int)):
        raise UserError(f"{key}={value!r} is not a number")
    return kinds[0](value)


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the plan."""

    name: str
    what: list[str]
    """One line for each thing it reads, asks or starts."""
    hours: float | None = None
    """Of wall-clock time on the run's devices; None: not counted."""


@dataclass(frozen=True)
class WholePlan:
    """Everything that a run file does, counted without doing any of it."""

    stages: list[PlannedStage]
    gpu_hours: float
    disk: str
    notes: list[str]
    missing: list[str]
    """What has to be given before it can start."""
    missing_here: list[str]
    """What this machine lacks for it."""


def plan_whole_run(file: RunFile, options: EvalOptions) -> WholePlan:
    """Return the plan of a run file.

    Raises:
        UserError: the student's size cannot be counted.
    """
    recipe = file.recipe
    sources = {str(path): read_data_recipe(name) for path, name in file.data.items()}
    to_build = sources.get(str(recipe.data.train))
    known = [f"questions={to_build.questions}"] if to_build else []
    plan = make_plan(recipe, assume(recipe, known))
    hours = whole_hours(plan, options)
    servers = _servers(recipe, plan)
    devices = recipe.hardware.ranks
    if starts_judge(recipe):
        devices += recipe.hardware.judge_devices
    if recipe.method_spec.uses_teacher_log_probs:
        devices += recipe.hardware.teacher_devices
    what = {
        recipe.method: _loop(recipe, plan) if recipe.method_spec.is_rl else [],
        "data": _data(recipe, plan, sources),
        "collect": servers,
        "sft": [f"{recipe.sft.steps:,} steps of {recipe.sft.batch_size} responses"],
        "discriminator": [
            f"{recipe.discriminator.pretrain_steps:,} steps of "
            f"{recipe.discriminator.pretrain_batch_size} responses"
        ],
        "export": [f"the {recipe.schedule.export} saved step as a Hugging Face checkpoint"],
        "eval": _evaluation(recipe, options),
        "table": ["the paper's rows, and the two measured ones"],
    }
    there = shutil.disk_usage(Path.cwd()).free
    return WholePlan(
        stages=[PlannedStage(name, what[name], hours.get(name)) for name in whole_stages(recipe)],
        gpu_hours=sum(hours.values()) * devices,
        disk=f"{plan.disk_total / 2**30:,.1f} GiB at most, {there / 2**30:,.1f} are free here",
        notes=[*plan.notes, *(line for line in plan.warnings if line != judge_needs(recipe))],
        missing=[*plan.refused, *what_is_missing(recipe, options)],
        missing_here=_missing_here(recipe, options, plan.disk_total - there),
    )


def whole_stages(recipe: Recipe) -> list[str]:
    """The stages of a run file, in their order."""
    return ["data", *planned_stages(recipe), "eval", "table"]


def whole_hours(plan: RunPlan, options: EvalOptions) -> dict[str, float]:
    """Return the wall-clock hours of each stage that is counted.

    Of the evaluation only sampling counts, as fast as in training; kit and judge are not counted.
    """
    hours = stage_hours(plan)
    if plan.step is not None and chosen_suite(options).published:
        responses = MODELS * _questions(options)
        devices = plan.recipe.hardware.ranks
        speed = plan.step.decode_tokens_per_second * devices
        hours["eval"] = responses * plan.assumed.response_tokens / speed / 3600
    return hours


def _questions(options: EvalOptions) -> int:
    asked = [dataset.questions for dataset in chosen_suite(options).datasets]
    return sum(min(number, options.limit or number) for number in asked)


def _data(recipe: Recipe, plan: RunPlan, built: Mapping[str, DataRecipe]) -> list[str]:
    lines = []
    for path, made in built.items():
        if whole_of(Path(path)) != Path(path):
            lines.append(f"held out of the same: {path}, {made.dev:,} questions for data.dev")
            continue
        quotas = made.quotas(round(made.questions * made.pool))
        lines += [
            f"{name}: {source.hub or source.path}, {quotas[name]:,} questions"
            for name, source in made.sources.items()
        ]
        chosen = f" of {sum(quotas.values()):,}" if made.pool > 1 else ""
        lines.append(f"built of these: {path}, {made.questions:,} questions{chosen}")
    for key, name in (("data.train", recipe.data.train), ("data.dev", recipe.data.dev)):
        number = count_questions(name) if name else 0
        if number:
            size = sum(file.stat().st_size for file in locate_files(name, key))
            lines.append(f"{key}: {name}, {number:,} questions, {size / 2**20:,.1f} MiB")
        elif name not in built:
            assumed = f"; {plan.assumed.questions:,} questions are assumed"
            lines.append(f"{key}: {name or 'not given'}{assumed if key == 'data.train' else ''}")
    return lines


def _servers(recipe: Recipe, plan: RunPlan) -> list[str]:
    """What is asked of each model, where, and what is started for it."""
    lines = list(plan.teacher_lines)
    if number := plan.responses.get(STUDENT):
        urls = recipe.collection.endpoints.get(STUDENT, ())
        where = f"asked at {', '.join(urls)}" if urls else "served here"
        lines.append(f"{STUDENT}: {recipe.student.model} {where}, {number:,} responses")
    for name, hours in plan.gpu_hours.items():
        stage, _, model = name.partition(": ")
        if stage == "collect":
            where = " at its address" if recipe.collection.endpoints.get(model) else ""
            lines.append(f"{model}: {short(hours)} GPU-hours{where}")
    return lines


def _loop(recipe: Recipe, plan: RunPlan) -> list[str]:
    if plan.step is None:
        return []
    hardware = recipe.hardware
    where = f"{hardware.ranks} devices of {hardware.memory_gib} GiB"
    return [
        f"{recipe.schedule.steps:,} steps of {recipe.responses_per_step:,} responses, "
        f"{plan.step.total_seconds:,.1f} s each, on {where} ({hardware.profile})",
        plan.judge_line,
        f"at most {plan.judge_calls:,} calls of the judge",
    ]


def chosen_suite(options: EvalOptions) -> Suite:
    """Return the chosen benchmarks, also where their judge is still missing."""
    suite = find_suite(options.suite).by(options.kit)
    return suite.pick(options.benchmarks) if options.benchmarks else suite


def _evaluation(recipe: Recipe, options: EvalOptions) -> list[str]:
    suite = chosen_suite(options)
    judge = options.judge
    decides = judge.model or "exact rules"
    if judge.url:
        urls = judge.url if isinstance(judge.url, str) else ", ".join(judge.url)
        decides += f" at {without_query_values(urls)}"
    asked = f"{_questions(options):,} questions" if suite.published else "synthetic stand-ins"
    lines = [
        f"{suite.name} suite, {len(suite.benchmarks)} benchmarks, {asked}, {MODELS} models: the "
        "student before and after",
        f"kit: {options.kit}; judge: {decides}; data in {options.data}",
    ]
    if evaluation_judge.starts_judge(options) and not evaluation_judge.judge_needs(recipe):
        lines.append(evaluation_judge.judge_line(recipe))
    return lines


def what_is_missing(recipe: Recipe, options: EvalOptions) -> list[str]:
    """Return what has to be given before the run can start, which no recipe can know."""
    missing = [
        f"{key} is not given (docs/data.md)"
        for key, value in (("data.train", recipe.data.train), ("data.dev", recipe.data.dev))
        if not value
    ]
    if line := judge_needs(recipe):
        missing.append(line)
    if evaluation_judge.starts_judge(options):
        missing += filter(None, [evaluation_judge.judge_needs(recipe)])
    try:
        options.chosen()
    except UserError as error:
        missing.append(f"eval.judge or eval.benchmarks: {error}")
    return missing


def _missing_here(recipe: Recipe, options: EvalOptions, lacking: float) -> list[str]:
    """What this machine lacks, where it is the one that will train.

    Args:
        recipe: the run's.
        options: of its evaluation.
        lacking: bytes of disk beyond those that are free; negative where there is room.
    """
    missing = []
    if recipe.hardware.device == "cuda" and not recipe.hardware.ray_address and not has_gpu():
        missing.append(f"{recipe.hardware.profile} trains on GPUs, and there is none")
    models = {"student.model": recipe.student.model}
    if recipe.uses_saved_responses or recipe.method_spec.uses_teacher_log_probs:
        served = recipe.collection.endpoints
        names = [name for name in recipe.teachers.names if not served.get(name)]
        models |= {f"teachers.models.{name}": recipe.teachers.models[name] for name in names}
    checks: list[Callable[[], object]] = [
        *(partial(locate, model, key) for key, model in models.items()),
        partial(check_converted, chosen_suite(options), options.data),
    ]
    missing += filter(None, map(_refusal, checks))
    if lacking > 0:
        missing.append(f"{lacking / 2**30:,.1f} GiB of disk")
    return missing


def _refusal(check: Callable[[], object]) -> str:
    """Return what a check says; "" if it passes."""
    try:
        check()
    except UserError as error:
        return str(error)
    return ""
