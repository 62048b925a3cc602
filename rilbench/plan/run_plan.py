"""The whole plan of a run: plain numbers, warnings and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rilbench.config.layouts import LAYOUTS, note_on_sharing, suited_to
from rilbench.config.schema import Recipe
from rilbench.devices import attention_on_gpus
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions, device
from rilbench.plan.compute_cost import (
    StepCost,
    discriminator_flops,
    plan_step,
    response_flops,
    training_factor,
)
from rilbench.plan.fit import refusals, would_help
from rilbench.plan.machine import disk, host_memory
from rilbench.plan.memory import GIB, Memory, plan_memory
from rilbench.plan.saved_responses import (
    Collected,
    collection_hours,
    note_on_collection,
    plan_collection,
)
from rilbench.plan.servers import judge_line, judge_needs
from rilbench.plan.states import discriminator_adapter, policy_adapter
from rilbench.plan.teachers import TeacherTokens, plan_tokens, teacher_lines

FULL = 0.92
"""Share of a device beyond which a plan warns, because of fragmentation."""


@dataclass(frozen=True)
class RunPlan:
    """The needs of a run; sizes are in bytes."""

    recipe: Recipe
    assumed: Assumptions
    student: Architecture
    memory: Memory
    step: StepCost | None  # None: the method ends after SFT
    gpu_hours: dict[str, float]
    responses: dict[str, int]  # to collect, by model
    responses_used: dict[str, int]  # of them, at most, by the whole schedule
    teacher_tokens: dict[str, TeacherTokens]
    teacher_lines: list[str]  # what is asked where, and what is started when
    judge_calls: int
    judge_line: str  # who judges where; "" without RL
    host: dict[str, float]  # memory of each machine
    disk: dict[str, float]
    notes: list[str]  # what could be cheaper
    warnings: list[str]
    refused: list[str]

    @property
    def host_total(self) -> float:
        """Bytes of memory that each machine needs."""
        return sum(self.host.values())

    @property
    def disk_total(self) -> float:
        """Bytes that the run takes when it takes the most."""
        return sum(self.disk.values())

    @property
    def attention(self) -> str:
        """Which attention trains; on GPUs as in this installation."""
        return attention_on_gpus() if self.recipe.hardware.device == "cuda" else "sdpa"

    def as_dict(self) -> dict[str, Any]:
        """Return plain types: bytes, seconds and counts."""
        recipe, memory = self.recipe, self.memory
        return {
            "recipe": recipe.recipe,
            "student": recipe.student.name,
            "method": recipe.method,
            "hardware": {**dataclasses.asdict(recipe.hardware), "taken_for": device(recipe)[0]},
            "fingerprint": recipe.fingerprint,
            "attention": self.attention,
            "assumed": dataclasses.asdict(self.assumed),
            "parameters": {
                "student": self.student.parameters,
                "vision": self.student.vision_parameters,
                "discriminator": self.student.discriminator
                if recipe.method_spec.uses_discriminator
                else 0,
                "adapter": policy_adapter(recipe, self.student),
                "discriminator_adapter": discriminator_adapter(recipe, self.student)
                if recipe.method_spec.uses_discriminator
                else 0,
            },
            "memory": {**dataclasses.asdict(memory), "peak": memory.peak},
            "step": None
            if self.step is None
            else {**dataclasses.asdict(self.step), "total_seconds": self.step.total_seconds},
            "gpu_hours": self.gpu_hours,
            "responses": self.responses,
            "responses_used": self.responses_used,
            "teachers": {
                name: dataclasses.asdict(tokens) for name, tokens in self.teacher_tokens.items()
            },
            "teacher_servers": self.teacher_lines,
            "judge_calls": self.judge_calls,
            "judge_server": self.judge_line,
            "host": {**self.host, "total": self.host_total},
            "disk": {**self.disk, "total": self.disk_total},
            "notes": self.notes,
            "warnings": self.warnings,
            "refused": self.refused,
        }


def make_plan(recipe: Recipe, assumed: Assumptions) -> RunPlan:
    """Plan a run.

    Raises:
        UserError: the student's config.json is neither in its folder nor in the tree.
    """
    student = find_architecture(recipe.student.model, recipe.student.name)
    notes = []
    if layout := LAYOUTS.get(student.layout):
        notes.append(note_on_sharing(recipe, layout, student.unshared))
        recipe = suited_to(recipe, layout, student.unshared)
    memory = plan_memory(recipe, student, assumed)
    step = plan_step(recipe, student, memory.rollout, assumed) if recipe.method_spec.is_rl else None
    collected = plan_collection(recipe, assumed)
    responses = {name: one.asked for name, one in collected.items()}
    notes.append(note_on_collection(recipe, student, assumed))
    return RunPlan(
        recipe=recipe,
        assumed=assumed,
        student=student,
        memory=memory,
        step=step,
        gpu_hours=_gpu_hours(recipe, student, step, collected, assumed),
        responses=responses,
        responses_used={name: one.used for name, one in collected.items()},
        teacher_tokens=plan_tokens(recipe, assumed),
        teacher_lines=teacher_lines(recipe, assumed),
        judge_calls=recipe.schedule.steps * recipe.responses_per_step
        if recipe.method_spec.is_rl
        else 0,
        judge_line=judge_line(recipe) if recipe.method_spec.is_rl else "",
        host=host_memory(recipe, student, memory, assumed),
        disk=disk(recipe, student, responses, assumed),
        notes=[note for note in notes if note],
        warnings=_warnings(recipe, student, memory, assumed),
        refused=refusals(recipe, student),
    )


def stage_hours(plan: RunPlan) -> dict[str, float]:
    """Return the wall-clock hours of each stage on the run's own devices."""
    hours: dict[str, float] = {}
    recipe = plan.recipe
    # The first node serves what is collected, on all of its devices.
    devices = {"collect": recipe.hardware.node_devices, recipe.method: _loop_devices(recipe)}
    for name, gpu_hours in plan.gpu_hours.items():
        stage, _, model = name.partition(": ")  # "collect: 72b"
        if stage == "collect" and recipe.collection.endpoints.get(model):
            continue  # on devices of its own
        number = devices.get(stage, recipe.hardware.ranks)
        hours[stage] = hours.get(stage, 0.0) + gpu_hours / number
    return hours


def _loop_devices(recipe: Recipe) -> int:
    """Return the devices that train, and those of teachers that score meanwhile."""
    scoring = recipe.method_spec.uses_teacher_log_probs
    return recipe.hardware.ranks + (recipe.hardware.teacher_devices if scoring else 0)


def _gpu_hours(
    recipe: Recipe,
    student: Architecture,
    step: StepCost | None,
    collected: Mapping[str, Collected],
    assumed: Assumptions,
) -> dict[str, float]:
    """Return the GPU-hours by stage."""
    counts = {name: one.asked // assumed.questions for name, one in collected.items()}
    collecting = collection_hours(recipe, student, counts, assumed)
    hours = {f"collect: {name}": number for name, number in collecting.items()}
    one_device = assumed.tflops * 1e12 * assumed.mfu * 3600
    if recipe.sft.steps:
        responses = recipe.sft.steps * recipe.sft.batch_size
        factor = training_factor(recipe, recipe.policy.lora_rank)
        hours["sft"] = responses * response_flops(student, assumed) * factor / one_device
    if recipe.method_spec.uses_discriminator:
        responses = recipe.discriminator.pretrain_steps * recipe.discriminator.pretrain_batch_size
        factor = training_factor(recipe, recipe.discriminator_lora_rank)
        factor += recipe.method_spec.pairs_with_teachers  # a pair is scored before its update
        flops = responses * discriminator_flops(recipe, student, assumed) * factor
        hours["discriminator"] = flops / one_device
    if step is not None:
        seconds = recipe.schedule.steps * step.total_seconds
        hours[recipe.method] = seconds * _loop_devices(recipe) / 3600
    return hours


def _warnings(
    recipe: Recipe, student: Architecture, memory: Memory, assumed: Assumptions
) -> list[str]:
    """Say what will probably not fit or be slow, and which setting would help."""
    room, warnings = recipe.hardware.memory_gib * GIB, []
    if memory.peak > FULL * room:
        phase = max(memory.phases, key=lambda name: memory.phases[name])
        warnings.append(
            f"{phase} needs about {memory.peak / GIB:.0f} of {recipe.hardware.memory_gib} GiB; "
            f"{_helps(recipe, student, assumed, phase)}"
        )
    rollout = memory.rollout
    if recipe.method_spec.is_rl and 0 < rollout.sequences_at_once < rollout.sequences_wanted:
        warnings.append(
            f"the cache holds {rollout.sequences_at_once} of the longest sequences at once, of "
            f"{rollout.sequences_wanted} to sample: the others may have to wait; raise "
            "hardware.rollout_memory"
        )
    if line := judge_needs(recipe):
        warnings.append(line)
    return warnings


def _helps(recipe: Recipe, student: Architecture, assumed: Assumptions, phase: str) -> str:
    """Return the first setting with which it fits."""
    room = FULL * recipe.hardware.memory_gib * GIB
    for other in would_help(recipe, student):
        if plan_memory(other, student, assumed).peak <= room:
            if other.policy != recipe.policy:
                return f"set policy.micro_batch_tokens={other.policy.micro_batch_tokens}"
            return f"set hardware.offload={other.hardware.offload}"
    if phase == "sampling":
        return "lower hardware.rollout_memory"
    return "take more or larger devices (--hardware), or lower data.max_prompt_tokens"
