"""The whole plan of a run: plain numbers, warnings and refusals."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rilbench.config.schema import Recipe
from rilbench.devices import attention_on_gpus
from rilbench.errors import UserError
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions, device
from rilbench.plan.compute_cost import (
    StepCost,
    collect_hours,
    discriminator_flops,
    plan_step,
    response_flops,
    training_factor,
)
from rilbench.plan.fit import refusals, would_help
from rilbench.plan.memory import GIB, MOMENTS, WEIGHT, Memory, plan_memory

FULL = 0.92
"""Share of a device beyond which a plan warns, because of fragmentation."""


@dataclass(frozen=True)
class RunPlan:
    """The needs of a run."""

    recipe: Recipe
    assumed: Assumptions
    student: Architecture
    memory: Memory
    step: StepCost | None  # None: the method ends after SFT
    gpu_hours: dict[str, float]
    responses: dict[str, int]  # to collect, by model
    judge_calls: int
    disk: dict[str, float]  # bytes
    warnings: list[str]
    refused: list[str]

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
            },
            "memory": {**dataclasses.asdict(memory), "peak": memory.peak},
            "step": None
            if self.step is None
            else {**dataclasses.asdict(self.step), "total_seconds": self.step.total_seconds},
            "gpu_hours": self.gpu_hours,
            "responses": self.responses,
            "judge_calls": self.judge_calls,
            "disk": self.disk,
            "warnings": self.warnings,
            "refused": self.refused,
        }


def make_plan(recipe: Recipe, assumed: Assumptions) -> RunPlan:
    """RunPlan a run.

    Raises:
        UserError: the student's config.json is neither in its folder nor in the tree.
    """
    student = find_architecture(recipe.student.model, recipe.student.name)
    memory = plan_memory(recipe, student, assumed)
    step = plan_step(recipe, student, memory.rollout, assumed) if recipe.method_spec.is_rl else None
    responses = _responses(recipe, assumed)
    return RunPlan(
        recipe=recipe,
        assumed=assumed,
        student=student,
        memory=memory,
        step=step,
        gpu_hours=_gpu_hours(recipe, student, step, assumed),
        responses=responses,
        judge_calls=recipe.schedule.steps * recipe.responses_per_step
        if recipe.method_spec.is_rl
        else 0,
        disk=_disk(recipe, student, responses, assumed),
        warnings=_warnings(recipe, student, memory, assumed),
        refused=refusals(recipe, student),
    )


def _responses(recipe: Recipe, assumed: Assumptions) -> dict[str, int]:
    """Return the number of responses to collect, by model."""
    counts: dict[str, int] = {}
    if recipe.method_spec.uses_teachers or recipe.sft_on_teachers:
        for name in recipe.teachers.names:
            counts[name] = assumed.questions * recipe.collection.teacher_responses
    if recipe.method_spec.uses_discriminator and recipe.discriminator.pretrain_steps:
        counts["student"] = assumed.questions * recipe.collection.student_responses
    return counts


def _gpu_hours(
    recipe: Recipe, student: Architecture, step: StepCost | None, assumed: Assumptions
) -> dict[str, float]:
    """Return the GPU-hours by stage; served models use GPUs like the recipe's."""
    hours: dict[str, float] = {}
    for name, count in _responses(recipe, assumed).items():
        try:
            model = (
                student if name == "student" else find_architecture(recipe.teachers.models[name])
            )
        except UserError:
            continue  # a teacher of the user's own behind an address
        hours[f"collect: {name}"] = collect_hours(
            recipe, model, count // assumed.questions, assumed
        )
    one_device = assumed.tflops * 1e12 * assumed.mfu * 3600
    factor = training_factor(recipe)
    if recipe.sft.steps:
        responses = recipe.sft.steps * recipe.sft.batch_size
        hours["sft"] = responses * response_flops(student, assumed) * factor / one_device
    if recipe.method_spec.uses_discriminator:
        responses = recipe.discriminator.pretrain_steps * recipe.discriminator.pretrain_batch_size
        flops = responses * discriminator_flops(recipe, student, assumed) * factor
        hours["discriminator"] = flops / one_device
    if step is not None:
        seconds = recipe.schedule.steps * step.total_seconds
        hours[recipe.method] = seconds * recipe.hardware.ranks / 3600
    return hours


def _disk(
    recipe: Recipe, student: Architecture, responses: dict[str, int], assumed: Assumptions
) -> dict[str, float]:
    """Return the bytes on disk: collected text, saved steps and one being written, the export."""
    tokens = sum(responses.values()) * assumed.response_tokens
    disk: dict[str, float] = {"collection": tokens * assumed.bytes_per_token}
    # In the student's own dtype: the paper's came in bf16, the nano ones in float32.
    export = float((2 if recipe.hardware.device == "cuda" else WEIGHT) * student.parameters)
    if recipe.method_spec.is_rl:
        one = float((WEIGHT + MOMENTS) * student.parameters)
        if recipe.method_spec.uses_discriminator:
            one += (WEIGHT + MOMENTS) * student.discriminator
            disk["discriminator"] = float((WEIGHT + MOMENTS) * student.discriminator)
        saved = max(1, recipe.schedule.steps // recipe.schedule.save_every)
        kept = saved if recipe.schedule.export == "best" else min(saved, recipe.schedule.keep)
        disk["one step"], disk["steps"] = one, one * (kept + 1)
    if recipe.sft.steps:
        disk["sft"] = (WEIGHT + MOMENTS) * student.parameters + export
    disk["export"] = export
    return disk


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
    if not recipe.judge.url and recipe.judge.model != "rule" and recipe.method_spec.is_rl:
        warnings.append(f"the judge, {recipe.judge.model}, needs an address: --set judge.url=URL")
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
