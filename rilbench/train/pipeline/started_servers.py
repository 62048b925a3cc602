"""The servers that a run starts: of models whose responses are collected, and of the judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rilbench.config import Recipe
from rilbench.devices import some_gpus
from rilbench.errors import UserError
from rilbench.judge.server import serve_judge
from rilbench.paths import locate
from rilbench.plan.server_layout import ServerLayout
from rilbench.plan.servers import judge_needs, plan_judge, starts_judge
from rilbench.serving import Server, serve, vllm_python
from rilbench.train.pipeline.run_folder import Run
from rilbench.train.pipeline.stage import Progress, note

_JUDGES = ("judge", "eval-judge")


@contextmanager
def started(
    run: Run, name: str, path: Path, plan: ServerLayout, progress: Progress, gpus: str = ""
) -> Iterator[Server]:
    """Serve a model while the body runs: by vLLM on GPUs, by our own server on a CPU.

    Args:
        run: in whose folder ``logs/serve-NAME.log`` is written.
        name: of the model in the recipe; ``judge`` and ``eval-judge`` are the judge.
        path: its folder.
        plan: how it uses the devices.
        progress: told that it loads.
        gpus: its ``CUDA_VISIBLE_DEVICES``; "": ours.

    Raises:
        UserError: as `serve`.
    """
    device = run.recipe.hardware.device
    on_cpu = device == "cpu"
    if not on_cpu:
        note(f"{name}: vLLM loads {path}, in {plan.start_limit / 60:.0f} min at most", progress)
    with serve(
        path,
        log=run.folder / "logs" / f"serve-{name}.log",
        timeout=plan.start_limit,
        device=device,
        dtype="float32" if on_cpu else "auto",
        vllm=None if on_cpu else vllm_python(),
        tensor_parallel=plan.tensor_parallel,
        data_parallel=plan.data_parallel,
        name=plan.name,
        gpus=gpus,
        arguments=plan.arguments,
        option="judge.serve" if name in _JUDGES else f"collection.serve.{name}",
        batches=on_cpu,
    ) as server:
        yield server


def check_started_judge(recipe: Recipe) -> None:
    """Refuse a judge that the run would have to start and cannot.

    Raises:
        UserError: it has no devices or too few, its model is not here, or vLLM is not installed.
    """
    if needs := judge_needs(recipe):
        raise UserError(needs)
    check_here(recipe, "judge.url=URL")


def check_here(recipe: Recipe, setting: str) -> None:
    """Refuse a judge whose model or server is not on this machine.

    Args:
        recipe: with the judge.
        setting: what names another that is served.

    Raises:
        UserError: one of them is not.
    """
    locate(recipe.judge.model, "judge.model")
    if vllm_python() is None:
        raise UserError(
            f"the judge, {recipe.judge.model}, is served by vLLM, which is not installed; install "
            f"rilbench[gpu], or serve it and set {setting}"
        )


@contextmanager
def judge_addresses(run: Run, progress: Progress) -> Iterator[tuple[str, ...]]:
    """The addresses of the judge, which is started for the body unless the user serves it.

    Raises:
        UserError: it does not start.
    """
    recipe, hardware = run.recipe, run.recipe.hardware
    if recipe.judge.url:
        yield recipe.judge.url
    elif starts_judge(recipe):
        path = locate(recipe.judge.model, "judge.model")
        plan = plan_judge(recipe, str(path))
        gpus = some_gpus(hardware.devices + hardware.teacher_devices, hardware.judge_devices)
        with started(run, "judge", path, plan, progress, gpus) as server:
            yield (server.base_url,)
    else:
        with serve_judge(recipe.judge.model) as url:
            yield (url,)


def training_gpus(recipe: Recipe) -> dict[str, str]:
    """Environment of the trainer: the GPUs of a judge that the run started are not its own."""
    if not starts_judge(recipe):
        return {}
    hardware = recipe.hardware
    return {"CUDA_VISIBLE_DEVICES": some_gpus(0, hardware.devices + hardware.teacher_devices)}
