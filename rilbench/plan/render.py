"""A plan as Rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rilbench.plan.assumptions import device
from rilbench.plan.memory import GIB
from rilbench.plan.numbers import short
from rilbench.plan.run_plan import RunPlan


def plan_view(plan: RunPlan) -> RenderableType:
    """Return the whole plan, notes last."""
    recipe, hardware = plan.recipe, plan.recipe.hardware
    what = "CPU" if hardware.device == "cpu" else f"GPU of {hardware.memory_gib} GiB"
    title = (
        f"{recipe.method}: {recipe.student.name} with {recipe.teacher_label}, "
        f"{hardware.profile}: {hardware.nodes} node with {hardware.devices} {what}"
    )
    parts: list[RenderableType] = [Text(title, style="bold"), _memory(plan)]
    if plan.step is not None:
        parts.append(_step(plan))
    servers = [line for line in (*plan.teacher_lines, plan.judge_line) if line]
    parts += [
        _stages(plan),
        _sizes("Memory of each machine", plan.host, plan.host_total),
        _sizes("Disk", plan.disk, plan.disk_total),
        *(Text(line) for line in servers if line not in plan.warnings),
        Text(f"attention: {plan.attention}"),
        Text(f"assumed ({device(recipe)[0]}): {' '.join(plan.assumed.lines)}"),
    ]
    parts += [Text(f"does not fit: {line}", style="bold red") for line in plan.refused]
    parts += [Text(f"warning: {line}", style="yellow") for line in plan.warnings]
    parts += [Text(f"note: {line}", style="cyan") for line in plan.notes]
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="dim")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _gib(number: float) -> str:
    return f"{number / GIB:.1f}" if number >= GIB / 10 else f"{number / GIB:.2g}"


def _memory(plan: RunPlan) -> Table:
    memory, student = plan.memory, plan.student
    table = _table("Memory of one device (GiB)", "part", "policy", "discriminator")
    discriminator = memory.discriminator
    size = "-" if discriminator is None else f"{student.discriminator:,}"
    table.add_row("parameters (exact)", f"{student.parameters:,}", size)
    names = {
        "weights": "weights",
        "gradients": "gradients",
        "optimiser": "optimiser states",
        "gathered": "layers gathered",
        "activations": "activations",
        "activations_unchecked": "(without checkpointing)",
        "recomputed": "the layer whose backward runs",
        "logits": "logits",
        "at_work": "during its update",
        "forward": "during a forward without gradient",
    }
    for field, name in names.items():
        size = "-" if discriminator is None else _gib(getattr(discriminator, field))
        table.add_row(name, _gib(getattr(memory.policy, field)), size)
    rollout = memory.rollout
    if plan.step is not None:
        at_once = f"{rollout.sequences_at_once} longest sequences"
        table.add_row("rollout: weights", _gib(rollout.weights), "")
        table.add_row("rollout: KV cache", _gib(rollout.kv_cache), at_once)
        table.add_row("reference (weights on the machine)", _gib(memory.reference), "")
    table.add_row("reserved", _gib(memory.reserved), "")
    for phase, need in memory.phases.items():
        table.add_row(f"total: {phase}", _gib(need), "", style="bold")
    return table


def _sizes(title: str, sizes: dict[str, float], total: float) -> Table:
    table = _table(title, "part", "GiB")
    for what, size in sizes.items():
        table.add_row(what, _gib(size))
    table.add_row("total", _gib(total), style="bold")
    return table


def _step(plan: RunPlan) -> Table:
    step = plan.step
    assert step is not None
    table = _table("One step", "part", "PFLOP", "seconds")
    for name, seconds in step.seconds.items():
        flops = step.flops.get(name)
        table.add_row(name, "" if flops is None else short(flops / 1e15), short(seconds))
    table.add_row("total", "", short(step.total_seconds), style="bold")
    table.add_row("responses", "", f"{step.responses:,}")
    table.add_row("tokens sampled", "", f"{step.sampled_tokens:,.0f}")
    table.add_row("tokens of teachers", "", f"{step.teacher_tokens:,.0f}")
    table.add_row("tokens trained on, prompts included", "", f"{step.trained_tokens:,.0f}")
    speed = f"{step.decode_tokens_per_second:,.0f}"
    table.add_row("tokens sampled per device and second", "", speed)
    return table


def _stages(plan: RunPlan) -> Table:
    table = _table("The run", "quantity", "number")
    for stage, hours in plan.gpu_hours.items():
        model = stage.removeprefix("collect: ")
        where = " at its address" if plan.recipe.collection.endpoints.get(model) else ""
        table.add_row(f"GPU-hours: {stage}{where}", short(hours))
    total = sum(plan.gpu_hours.values())
    table.add_row("GPU-hours", short(total), style="bold")
    if plan.step is not None:
        days = plan.recipe.schedule.steps * plan.step.total_seconds / 86400
        table.add_row(f"days of the loop ({plan.recipe.schedule.steps} steps)", short(days))
    for model, count in plan.responses.items():
        table.add_row(f"responses to collect: {model}", f"{count:,}")
        table.add_row("  used by the schedule, at most", f"{plan.responses_used[model]:,}")
    table.add_row("judge calls, at most", f"{plan.judge_calls:,}")
    return table
