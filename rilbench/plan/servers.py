"""The servers that a run starts itself: how each uses the devices, and its command line."""

from __future__ import annotations

import shlex
from pathlib import Path

from rilbench.api_keys import without_query_values
from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.judge.code_judges import decides_by_code
from rilbench.plan.architecture import find_architecture
from rilbench.plan.fit import SERVED_SHARE
from rilbench.plan.memory import GIB
from rilbench.plan.server_layout import ServerLayout, server_layout
from rilbench.serving.server import server_command, split_options


def plan_teacher(recipe: Recipe, name: str, model: str) -> ServerLayout:
    """Return how to serve a teacher, or the student: on all devices, since nothing else runs then.

    Args:
        recipe: with the hardware.
        name: the teacher's name in the recipe.
        model: its folder or hub name.
    """
    setting = f"collection.serve.{name}"
    options = split_options(setting, recipe.collection.serve.get(name, ""))
    return _plan(recipe, model, recipe.hardware.node_devices, options)


def starts_judge(recipe: Recipe) -> bool:
    """Whether the judge is a language model that the run has to start: on GPUs, at no address."""
    judge = recipe.judge
    is_needed = recipe.method_spec.is_rl and not judge.url and not decides_by_code(judge.model)
    return is_needed and recipe.hardware.device == "cuda"


def plan_judge(recipe: Recipe, model: str) -> ServerLayout:
    """Return how to serve the judge on the devices that are left to it.

    Args:
        recipe: one that `starts_judge` and has what `judge_needs`.
        model: its folder or hub name.
    """
    devices, judge = recipe.hardware.judge_devices, recipe.judge
    return _plan(recipe, model, devices, split_options("judge.serve", judge.serve), judge.model)


def judge_needs(recipe: Recipe) -> str:
    """Return what is missing for a judge, in one line with its remedy; "" if nothing is."""
    judge, hardware = recipe.judge, recipe.hardware
    if judge.url or decides_by_code(judge.model) or not recipe.method_spec.is_rl:
        return ""
    served = "serve it and set judge.url=URL"
    if not recipe.method_spec.uses_answer_reward:
        served += f", or set judge.model=rule, as method={recipe.method} only reports verdicts"
    if not starts_judge(recipe):
        return f"the judge, {judge.model}, needs an address: --set judge.url=URL"
    if hardware.nodes > 1 or hardware.ray_address:
        return (
            f"the judge, {judge.model}, is not started: that is done on a single node, without a "
            f"Ray of yours; {served}"
        )
    if not hardware.judge_devices and hardware.devices == 1:
        return f"the judge, {judge.model}, is not started: the one device trains; {served}"
    if not hardware.judge_devices:
        return (
            f"the judge, {judge.model}, is not started: {hardware.profile} trains on all "
            f"{hardware.devices} devices; leave some (--hardware 1x8-80gb-judge, or "
            f"hardware.devices and hardware.judge_devices), or {served}"
        )
    lack = devices_lack(recipe)
    return f"the judge, {lack}, or {served}" if lack else ""


def devices_lack(recipe: Recipe) -> str:
    """Return why ``hardware.judge_devices`` do not hold the judge, with a remedy; "" if they do."""
    name, hardware = recipe.judge.model, recipe.hardware
    try:
        size = 2 * find_architecture(name).parameters / GIB
    except UserError:
        return ""
    if size <= SERVED_SHARE * hardware.judge_devices * hardware.memory_gib:
        return ""
    return (
        f"{name}, is {size:.0f} GiB in bf16, and hardware.judge_devices="
        f"{hardware.judge_devices} of {hardware.memory_gib} GiB; raise it"
    )


def judge_line(recipe: Recipe) -> str:
    """Return who judges where, and what is started for it when."""
    judge = recipe.judge
    if judge.url:
        return f"judge: {judge.model}, asked at {without_query_values(', '.join(judge.url))}"
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


def command_line(recipe: Recipe, model: str, server: ServerLayout) -> str:
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
        batches=cpu,
    )
    return shlex.join(command)


def _plan(
    recipe: Recipe, model: str, devices: int, options: tuple[str, ...], name: str = ""
) -> ServerLayout:
    if recipe.hardware.device == "cpu":
        return ServerLayout()
    # All that a request does not say is neutral, and not what the model's own files suggest.
    arguments = ("--generation-config", "vllm", *options)
    return server_layout(model, devices, recipe.hardware.memory_gib, arguments, name)
