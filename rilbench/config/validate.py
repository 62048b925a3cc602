"""Values out of range and settings that do not fit together, each refused with its remedy."""

from __future__ import annotations

import math
from typing import Any

from rilbench.config.schema import METHODS, PARTS, Recipe
from rilbench.errors import UserError

DISCRIMINATOR_PROMPT_TOKENS = 512
"""More than the discriminator's own words and the chat template have, around a response."""


def check(recipe: Recipe) -> None:
    """Check a whole recipe.

    Raises:
        UserError: the first thing that is wrong, with what to set instead.
    """
    _choices(recipe)
    _counts(recipe)
    _numbers(recipe)
    _schedule(recipe)
    _teachers(recipe)
    _sft(recipe)
    _hardware(recipe)
    _unused(recipe)


def _choices(recipe: Recipe) -> None:
    choices: list[tuple[str, Any, tuple[str, ...]]] = [
        ("method", recipe.method, METHODS),
        ("teachers.mix", recipe.teachers.mix, ("split", "each")),
        ("reward.similarity", recipe.reward.similarity, ("binary", "continuous")),
        ("policy.frozen", recipe.policy.frozen, PARTS),
        ("schedule.export", recipe.schedule.export, ("last", "best")),
        ("hardware.device", recipe.hardware.device, ("cpu", "cuda")),
        ("hardware.rollout_engine", recipe.hardware.rollout_engine, ("auto", "vllm")),
        ("hardware.offload", recipe.hardware.offload, ("none", "between", "always")),
    ]
    for key, value, allowed in choices:
        if value not in allowed:
            known = ", ".join(each for each in allowed if each)
            raise UserError(f"{key}={value!r} is not known; use one of {known}")


def _counts(recipe: Recipe) -> None:
    positive = {
        "group": recipe.group,
        "schedule.steps": recipe.schedule.steps,
        "schedule.questions": recipe.schedule.questions,
        "schedule.save_every": recipe.schedule.save_every,
        "schedule.keep": recipe.schedule.keep,
        "hardware.nodes": recipe.hardware.nodes,
        "hardware.devices": recipe.hardware.devices,
        "hardware.memory_gib": recipe.hardware.memory_gib,
        "hardware.rollout_tensor_parallel": recipe.hardware.rollout_tensor_parallel,
        "sft.rows": recipe.sft.rows,
        "policy.updates": recipe.policy.updates,
        "policy.mini_batches": recipe.policy.mini_batches,
        "policy.micro_rows": recipe.policy.micro_rows,
        "discriminator.micro_rows": recipe.discriminator.micro_rows,
        "data.max_response_tokens": recipe.data.max_response_tokens,
        "collection.teacher_responses": recipe.collection.teacher_responses,
        "collection.student_responses": recipe.collection.student_responses,
        "collection.concurrency": recipe.collection.concurrency,
        "discriminator.pretrain_rows (two at least)": recipe.discriminator.pretrain_rows - 1,
    }
    for key, number in positive.items():
        if number < 1:
            raise UserError(f"{key}={number} must be at least 1")


def _numbers(recipe: Recipe) -> None:
    not_negative: dict[str, float] = {
        "own_samples": recipe.own_samples,
        "teachers.use": recipe.teachers.use,
        "sft.steps": recipe.sft.steps,
        "discriminator.pretrain_steps": recipe.discriminator.pretrain_steps,
        "discriminator.updates": recipe.discriminator.updates,
        "schedule.eval_every": recipe.schedule.eval_every,
        "policy.micro_tokens": recipe.policy.micro_tokens,
        "discriminator.micro_tokens": recipe.discriminator.micro_tokens,
        "policy.length_scale": recipe.policy.length_scale,
        "policy.beta": recipe.policy.beta,
        "policy.weight_decay": recipe.policy.weight_decay,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value} must not be negative")
    above_zero: dict[str, float] = {
        "policy.rate": recipe.policy.rate,
        "policy.clip": recipe.policy.clip,
        "sft.rate": recipe.sft.rate,
        "sft.final_rate": recipe.sft.final_rate,
        "discriminator.rate": recipe.discriminator.rate,
        "discriminator.pretrain_rate": recipe.discriminator.pretrain_rate,
        "discriminator.pretrain_final_rate": recipe.discriminator.pretrain_final_rate,
        "sampling.temperature": recipe.sampling.temperature,
        "sampling.top_p": recipe.sampling.top_p,
        "sampling.repetition_penalty": recipe.sampling.repetition_penalty,
    }
    for key, value in above_zero.items():
        if not 0 < value < math.inf:
            raise UserError(f"{key}={value} must be a number above 0")
    wrong = {
        "collection.max_failed": recipe.collection.max_failed,
        "judge.max_missing": recipe.judge.max_missing,
        "judge.false_right": recipe.judge.false_right,
        "judge.false_wrong": recipe.judge.false_wrong,
    }
    for key, value in wrong.items():
        if not 0 <= value <= 1:
            raise UserError(f"{key}={value} is a share; give a number from 0 to 1")


def _schedule(recipe: Recipe) -> None:
    if recipe.schedule.questions % recipe.policy.mini_batches:
        raise UserError(
            f"policy.mini_batches={recipe.policy.mini_batches} must divide "
            f"schedule.questions={recipe.schedule.questions}"
        )
    if recipe.schedule.export == "best" and not recipe.schedule.eval_every:
        raise UserError("schedule.export=best needs scores on the dev split; add --eval-every N")


def _teachers(recipe: Recipe) -> None:
    if recipe.mixes or recipe.distils:
        unknown = [name for name in recipe.teachers.names if name not in recipe.teachers.models]
        if unknown or not recipe.teachers.names:
            raise UserError(
                f"teachers.models has no model for {', '.join(unknown) or 'any teacher'}; "
                "set teachers.models.NAME=PATH"
            )
    if recipe.teachers.use > recipe.collection.teacher_responses:
        raise UserError(
            f"teachers.use={recipe.teachers.use} is more than is collected; raise "
            f"collection.teacher_responses={recipe.collection.teacher_responses}"
        )


def _sft(recipe: Recipe) -> None:
    if recipe.method == "sft" and not recipe.sft.steps:
        raise UserError("method=sft has nothing to do with sft.steps=0; set sft.steps=N")
    if recipe.sft.data and not recipe.sft.steps:
        raise UserError(f"sft.data={recipe.sft.data} is not used with sft.steps=0; set sft.steps=N")


def _hardware(recipe: Recipe) -> None:
    hardware = recipe.hardware
    if not 0 < hardware.rollout_memory < 1:
        raise UserError(
            f"hardware.rollout_memory={hardware.rollout_memory} is a share of the device's memory; "
            "give a number between 0 and 1"
        )
    if hardware.devices % hardware.rollout_tensor_parallel:
        raise UserError(
            f"hardware.rollout_tensor_parallel={hardware.rollout_tensor_parallel} must divide the "
            f"hardware.devices={hardware.devices} of a node"
        )
    longest = {
        "policy": (recipe.policy.micro_tokens, recipe.longest_row),
        "discriminator": (
            recipe.discriminator.micro_tokens,
            recipe.data.max_response_tokens + DISCRIMINATOR_PROMPT_TOKENS,
        ),
    }
    for part, (tokens, row) in longest.items():
        if 0 < tokens < row:
            raise UserError(
                f"{part}.micro_tokens={tokens} are fewer than the {row} of the longest row "
                f"(data.max_prompt_tokens, data.max_response_tokens); set {part}.micro_tokens={row}"
            )
    if hardware.device == "cpu":
        for_gpus = {
            "hardware.offload": hardware.offload != "none",
            "hardware.remove_padding": hardware.remove_padding,
            "hardware.rollout_tensor_parallel": hardware.rollout_tensor_parallel > 1,
        }
        for key, is_set in for_gpus.items():
            if is_set:
                raise UserError(
                    f"{key} needs GPUs, and hardware.device=cpu; take --hardware cpu, or another "
                    "profile with its own device"
                )


def _unused(recipe: Recipe) -> None:
    """A setting that the method would not look at would make two equal runs look different."""
    rewarded = recipe.reinforces and recipe.method != "imitation"
    noisy = recipe.judge.false_right > 0 or recipe.judge.false_wrong > 0
    unused = {
        "own_samples": recipe.own_samples > 0 and not recipe.reinforces,
        "teachers.use": recipe.teachers.use > 0 and not (recipe.mixes or recipe.distils),
        "reward.similarity": recipe.reward.similarity != "binary" and not recipe.imitates,
        "policy.frozen": bool(recipe.policy.frozen) and not recipe.reinforces,
        "policy.teacher_rows": not recipe.policy.teacher_rows and not recipe.mixes,
        "judge.false_right, judge.false_wrong": noisy and not rewarded,
        "schedule.export=best": recipe.schedule.export == "best" and not recipe.reinforces,
    }
    for key, is_unused in unused.items():
        if is_unused:
            raise UserError(
                f"{key} changes nothing with method={recipe.method}; leave it out, or choose "
                "another method"
            )
    if noisy and recipe.judge.model != "rule":
        raise UserError(
            "judge.false_right and judge.false_wrong simulate errors of an exact judge; set "
            "judge.model=rule, or leave them out"
        )
    if recipe.judge.false_right + recipe.judge.false_wrong > 1:
        raise UserError(
            "judge.false_right and judge.false_wrong add up to more than 1: the judge would "
            "prefer wrong responses; lower one"
        )
    if recipe.imitates and not (
        recipe.discriminator.updates or recipe.discriminator.pretrain_steps
    ):
        raise UserError(
            "a discriminator with updates=0 and pretrain_steps=0 would never be trained; raise "
            "discriminator.updates or discriminator.pretrain_steps, or use method=teacher-rows"
        )
