"""Refuse what certainly cannot work, by the models' shapes, with the setting that helps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rilbench.config.schema import Recipe
from rilbench.errors import UserError
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.memory import GIB
from rilbench.plan.states import (
    discriminator_adapter,
    discriminator_states,
    policy_adapter,
    policy_states,
)

SERVED_SHARE = 0.9
"""Share of a device's memory that a vLLM server takes by default."""
SCORING_SHARE = 0.8
"""The same of a teacher that scores samples, which needs room for log-probabilities."""


def check_fit(recipe: Recipe) -> None:
    """Refuse a run that cannot fit, before anything is loaded.

    A student of an unknown layout is not refused: verl decides.

    Raises:
        UserError: the first refusal, with the setting that would help.
    """
    try:
        student = find_architecture(recipe.student.model, recipe.student.name)
    except UserError:
        return
    if lines := refusals(recipe, student):
        raise UserError(lines[0])


def refusals(recipe: Recipe, student: Architecture) -> list[str]:
    """Return a line for each thing that cannot fit."""
    if targets := _targets(recipe, student):
        return [targets]
    checks = [_frozen(recipe, student), _states(recipe, student)]
    if recipe.hardware.device == "cuda":
        checks += [*_rollout(recipe, student), *_teachers(recipe), *_scoring_teachers(recipe)]
    return [line for line in checks if line]


def _targets(recipe: Recipe, student: Architecture) -> str:
    try:
        policy_adapter(recipe, student)
        if recipe.method_spec.uses_discriminator:
            discriminator_adapter(recipe, student)
    except UserError as error:
        return str(error)
    return ""


def _frozen(recipe: Recipe, student: Architecture) -> str:
    if recipe.policy.freeze != "head" or not student.tied:
        return ""
    return (
        f"policy.freeze=head: the head of {student.name} is its embedding; leave it out, or set "
        "policy.freeze=embedding"
    )


def needed_states(recipe: Recipe, student: Architecture, offload: str) -> float:
    """Return the least bytes of weights, gradients and AdamW's moments on one device."""
    if offload == "always":
        return 0.0
    policy, discriminator = policy_states(recipe, student), discriminator_states(recipe, student)
    if offload == "idle":
        need = max(policy.total, discriminator.total)
    else:
        need = policy.total + discriminator.waiting
    return need / recipe.hardware.ranks


def _states(recipe: Recipe, student: Architecture) -> str:
    hardware = recipe.hardware
    need = needed_states(recipe, student, hardware.offload)
    if need <= hardware.memory_gib * GIB:
        return ""
    whose = (
        "the student and its discriminator"
        if recipe.method_spec.uses_discriminator
        else "the student"
    )
    if hardware.offload == "idle":
        whose = "the student"
    return (
        f"{student.name} does not fit: weights, gradients and AdamW's moments of {whose} are "
        f"{need / GIB:.0f} GiB on a device of {hardware.memory_gib}; {_smaller(recipe, student)}"
    )


def _smaller(recipe: Recipe, student: Architecture) -> str:
    """Return what would make the states fit on a GPU."""
    room = recipe.hardware.memory_gib * GIB
    if recipe.hardware.device != "cuda":
        return "take other hardware (--hardware)"
    offload = next(
        offload for offload in ("idle", "always") if needed_states(recipe, student, offload) <= room
    )
    policy = dataclasses.replace(recipe.policy, lora_rank=32)
    adapted = dataclasses.replace(recipe, policy=policy)
    fits = needed_states(adapted, student, recipe.hardware.offload) <= room
    adapter = ", train an adapter (policy.lora_rank=32)" if fits else ""
    return f"set hardware.offload={offload}{adapter}, or take more devices (--hardware)"


def _rollout(recipe: Recipe, student: Architecture) -> list[str]:
    if not recipe.method_spec.is_rl:
        return []
    hardware, parallel = recipe.hardware, recipe.hardware.rollout_tensor_parallel
    found = []
    if not student.splits(parallel):
        best = devices_of_server(student, hardware.devices)
        found.append(
            f"{student.name} cannot be divided among {parallel} devices ({student.text.heads} "
            f"attention heads); set hardware.rollout_tensor_parallel to {best} at most"
        )
    share = hardware.rollout_memory * hardware.memory_gib * GIB
    need = (2 * student.parameters + student.kv_bytes * recipe.max_sequence_tokens) / parallel
    if need > share:
        found.append(
            f"{student.name} cannot be sampled: its weights and one of the longest sequences are "
            f"{need / GIB:.0f} GiB, and hardware.rollout_memory={hardware.rollout_memory} is "
            f"{share / GIB:.0f} GiB; raise it, or hardware.rollout_tensor_parallel"
        )
    return found


def serving_devices(model: Architecture, memory_gib: int) -> int:
    """Return the devices of one server: the smallest power of 2 that leaves room."""
    devices = 1
    while 2 * model.parameters > 0.8 * SERVED_SHARE * memory_gib * GIB * devices:
        devices *= 2
    return devices


def devices_of_server(model: Architecture, devices: int) -> int:
    """Return the most of so many devices among which vLLM can divide a model evenly."""
    return max(n for n in range(1, devices + 1) if devices % n == 0 and model.splits(n))


def _teachers(recipe: Recipe) -> list[str]:
    """Check the teachers without an address, which are served on the devices of one node."""
    if not recipe.uses_saved_responses:
        return []
    hardware, found = recipe.hardware, []
    for name in recipe.teachers.names:
        folder = recipe.collection.folder
        collected = bool(folder) and (Path(folder) / f"{name}.parquet").is_file()
        if recipe.collection.endpoints.get(name) or collected:
            continue
        try:
            teacher = find_architecture(recipe.teachers.models[name])
        except UserError:
            continue
        devices = hardware.node_devices
        need, have = 2 * teacher.parameters / GIB, devices * hardware.memory_gib
        if need > SERVED_SHARE * have:
            gpus = "1 GPU" if devices == 1 else f"{devices} GPUs"
            found.append(
                f"teacher {name} cannot be served here: {teacher.name} is {need:.0f} GiB in bf16, "
                f"on {gpus} of {hardware.memory_gib} GiB; give its address with "
                f"--set collection.endpoints.{name}=URL"
            )
    return found


def _scoring_teachers(recipe: Recipe) -> list[str]:
    """Check the teachers whose log-probabilities are asked for while the student trains."""
    hardware = recipe.hardware
    if not recipe.method_spec.uses_teacher_log_probs or hardware.device == "cpu":
        return []
    found, devices = [], max(1, hardware.teacher_devices // len(recipe.teachers.names))
    for name in recipe.teachers.names:
        try:
            teacher = find_architecture(recipe.teachers.models[name])
        except UserError:
            continue
        if not teacher.splits(devices):
            found.append(
                f"teacher {name} cannot be divided among {devices} devices ({teacher.text.heads} "
                "attention heads); set hardware.teacher_devices to another multiple of "
                f"{len(recipe.teachers.names)}"
            )
        need = (2 * teacher.parameters + teacher.kv_bytes * recipe.max_sequence_tokens) / GIB
        if need > SCORING_SHARE * devices * hardware.memory_gib:
            found.append(
                f"teacher {name} cannot be served here: {teacher.name} with one of the longest "
                f"sequences is {need:.0f} GiB in bf16, and hardware.teacher_devices="
                f"{hardware.teacher_devices} leave it {devices} of {hardware.memory_gib} GiB, of "
                f"which {SCORING_SHARE:.0%} are for it; raise it"
            )
    return found


def would_help(recipe: Recipe, student: Architecture) -> list[Recipe]:
    """Return variants of a recipe in which a device holds less, cheapest first."""
    hardware, policy = recipe.hardware, recipe.policy
    found = []
    if policy.micro_batch_tokens > recipe.max_sequence_tokens:
        fewer = dataclasses.replace(policy, micro_batch_tokens=recipe.max_sequence_tokens)
        found.append(dataclasses.replace(recipe, policy=fewer))
    for offload in ("idle", "always"):
        if ("none", "idle", "always").index(hardware.offload) < (
            "none",
            "idle",
            "always",
        ).index(offload):
            other = dataclasses.replace(hardware, offload=offload)
            found.append(dataclasses.replace(recipe, hardware=other))
    return found
