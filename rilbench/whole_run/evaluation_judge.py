"""The judge of a run's evaluation: the one that the file names, or else training's.

One that has no address is served on the first node, where training has left all devices: the judge
takes those that the profile leaves to it, or half of them, and the evaluated students the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rilbench.config import Recipe
from rilbench.config.run_file import RunFile
from rilbench.devices import some_gpus
from rilbench.errors import UserError
from rilbench.evaluate.judge_session import Judge
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.suite import find_suite
from rilbench.judge.code_judges import decides_by_code
from rilbench.paths import locate
from rilbench.plan.servers import command_line, devices_lack, plan_judge
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.stage import Progress
from rilbench.train.pipeline.started_servers import check_here, started


def with_judge(file: RunFile, options: EvalOptions) -> EvalOptions:
    """Return the options with training's judge, where none is named and the benchmarks need one."""
    recipe, judge = file.recipe, file.recipe.judge
    named = file.evaluation.get("judge") is not None
    if named or decides_by_code(judge.model) or not _needs_judge(options):
        return options
    fields = judge.fields or None
    if judge.url:
        url = judge.url if len(judge.url) > 1 else judge.url[0]
        return replace(options, judge=Judge(url, judge.model, fields))
    if recipe.hardware.device != "cuda":
        return options
    return replace(options, judge=Judge((), judge.model, fields))


def _needs_judge(options: EvalOptions) -> bool:
    suite = find_suite(options.suite, ",".join(options.benchmarks), options.kit)
    return suite.published and any(benchmark.judged for benchmark in suite.benchmarks)


def starts_judge(options: EvalOptions) -> bool:
    """Whether the judge of an evaluation has no address yet, so that the run starts it."""
    return options.judge.url == ()


def judge_needs(recipe: Recipe) -> str:
    """Return what is missing to start the judge, in one line with its remedy; "" if nothing is."""
    model, hardware = recipe.judge.model, recipe.hardware
    served = f"serve it and set eval.judge={model}@URL"
    if hardware.node_devices < 2:
        return (
            f"the evaluation's judge, {model}, is not started: {hardware.profile} has one device "
            f"for it and the student; {served}"
        )
    lack = devices_lack(_shared(recipe))
    return f"the evaluation's judge, {lack}, or {served}" if lack else ""


def judge_line(recipe: Recipe) -> str:
    """Return what is started for the evaluation, on which devices, by which command."""
    shared = _shared(recipe)
    server = plan_judge(shared, recipe.judge.model)
    return (
        f"judge: started before it on {shared.hardware.judge_devices} of the node's "
        f"{recipe.hardware.node_devices} devices, up within {server.start_limit / 60:.0f} min, "
        f"stopped after it: {command_line(shared, recipe.judge.model, server)}"
    )


def check_judge(recipe: Recipe) -> None:
    """Refuse a judge that the run would have to start for the evaluation and cannot.

    Raises:
        UserError: too few devices, its model is not here, or vLLM is not installed.
    """
    if needs := judge_needs(recipe):
        raise UserError(needs)
    check_here(recipe, f"eval.judge={recipe.judge.model}@URL")


@contextmanager
def judge_for(run: Run, options: EvalOptions, progress: Progress) -> Iterator[EvalOptions]:
    """The options of an evaluation whose judge answers, which is started for the body if needed.

    Raises:
        UserError: it does not start.
    """
    if not starts_judge(options):
        yield options
        return
    check_judge(run.recipe)
    recipe = _shared(run.recipe)
    hardware, name = recipe.hardware, recipe.judge.model
    path = locate(name, "judge.model")
    gpus = some_gpus(hardware.devices, hardware.judge_devices)
    plan = plan_judge(recipe, str(path))
    with started(run, "eval-judge", path, plan, progress, gpus) as server:
        # vLLM takes the first of the devices for the student.
        yield replace(options, judge=Judge(server.base_url, name), gpus=hardware.devices)


def _shared(recipe: Recipe) -> Recipe:
    """The recipe with the first node's devices shared between student and judge."""
    hardware = recipe.hardware
    judge = hardware.judge_devices or hardware.devices // 2
    left = hardware.node_devices - judge
    return replace(recipe, hardware=replace(hardware, devices=left, judge_devices=judge))
