"""Values out of range and settings that do not fit together, each refused with its remedy."""

from __future__ import annotations

import math
from typing import Any

from rilbench.config.schema import PARTS, Recipe
from rilbench.errors import UserError
from rilbench.ril.methods import METHODS

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
        ("method", recipe.method, tuple(METHODS)),
        ("teachers.mix", recipe.teachers.mix, ("split", "each")),
        ("reward.similarity", recipe.reward.similarity, ("binary", "continuous")),
        ("policy.freeze", recipe.policy.freeze, PARTS),
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
        "group_size": recipe.group_size,
        "schedule.steps": recipe.schedule.steps,
        "schedule.prompts_per_step": recipe.schedule.prompts_per_step,
        "schedule.save_every": recipe.schedule.save_every,
        "schedule.keep": recipe.schedule.keep,
        "hardware.nodes": recipe.hardware.nodes,
        "hardware.devices": recipe.hardware.devices,
        "hardware.memory_gib": recipe.hardware.memory_gib,
        "hardware.rollout_tensor_parallel": recipe.hardware.rollout_tensor_parallel,
        "sft.batch_size": recipe.sft.batch_size,
        "policy.mu": recipe.policy.mu,
        "policy.mini_batches": recipe.policy.mini_batches,
        "policy.micro_batch_size": recipe.policy.micro_batch_size,
        "discriminator.micro_batch_size": recipe.discriminator.micro_batch_size,
        "data.max_response_tokens": recipe.data.max_response_tokens,
        "collection.teacher_responses": recipe.collection.teacher_responses,
        "collection.student_responses": recipe.collection.student_responses,
        "collection.concurrency": recipe.collection.concurrency,
        "discriminator.pretrain_batch_size (two at least)": recipe.discriminator.pretrain_batch_size
        - 1,
    }
    for key, number in positive.items():
        if number < 1:
            raise UserError(f"{key}={number} must be at least 1")


def _numbers(recipe: Recipe) -> None:
    not_negative: dict[str, float] = {
        "num_samples": recipe.num_samples,
        "teachers.max_responses": recipe.teachers.max_responses,
        "sft.steps": recipe.sft.steps,
        "discriminator.pretrain_steps": recipe.discriminator.pretrain_steps,
        "discriminator.mu": recipe.discriminator.mu,
        "schedule.eval_every": recipe.schedule.eval_every,
        "policy.micro_batch_tokens": recipe.policy.micro_batch_tokens,
        "discriminator.micro_batch_tokens": recipe.discriminator.micro_batch_tokens,
        "policy.length_scale": recipe.policy.length_scale,
        "policy.kl_coef": recipe.policy.kl_coef,
        "policy.weight_decay": recipe.policy.weight_decay,
    }
    for key, value in not_negative.items():
        if not 0 <= value < math.inf:
            raise UserError(f"{key}={value} must not be negative")
    above_zero: dict[str, float] = {
        "policy.lr": recipe.policy.lr,
        "policy.clip_eps": recipe.policy.clip_eps,
        "sft.lr": recipe.sft.lr,
        "sft.final_lr": recipe.sft.final_lr,
        "discriminator.lr": recipe.discriminator.lr,
        "discriminator.pretrain_lr": recipe.discriminator.pretrain_lr,
        "discriminator.pretrain_final_lr": recipe.discriminator.pretrain_final_lr,
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
        "judge.false_positive_rate": recipe.judge.false_positive_rate,
        "judge.false_negative_rate": recipe.judge.false_negative_rate,
    }
    for key, value in wrong.items():
        if not 0 <= value <= 1:
            raise UserError(f"{key}={value} is a share; give a number from 0 to 1")


def _schedule(recipe: Recipe) -> None:
    if recipe.schedule.prompts_per_step % recipe.policy.mini_batches:
        raise UserError(
            f"policy.mini_batches={recipe.policy.mini_batches} must divide "
            f"schedule.prompts_per_step={recipe.schedule.prompts_per_step}"
        )
    if recipe.schedule.export == "best" and not recipe.schedule.eval_every:
        raise UserError("schedule.export=best needs scores on the dev split; add --eval-every N")


def _teachers(recipe: Recipe) -> None:
    if recipe.method_spec.uses_teachers or recipe.sft_on_teachers:
        unknown = [name for name in recipe.teachers.names if name not in recipe.teachers.models]
        if unknown or not recipe.teachers.names:
            raise UserError(
                f"teachers.models has no model for {', '.join(unknown) or 'any teacher'}; "
                "set teachers.models.NAME=PATH"
            )
    if recipe.teachers.max_responses > recipe.collection.teacher_responses:
        raise UserError(
            f"teachers.max_responses={recipe.teachers.max_responses} is more than is "
            f"collected; raise collection.teacher_responses={recipe.collection.teacher_responses}"
        )


def _sft(recipe: Recipe) -> None:
    if not recipe.method_spec.is_rl and not recipe.sft.steps:
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
        "policy": (recipe.policy.micro_batch_tokens, recipe.max_sequence_tokens),
        "discriminator": (
            recipe.discriminator.micro_batch_tokens,
            recipe.data.max_response_tokens + DISCRIMINATOR_PROMPT_TOKENS,
        ),
    }
    for part, (tokens, row) in longest.items():
        if 0 < tokens < row:
            raise UserError(
                f"{part}.micro_batch_tokens={tokens} are fewer than the {row} of the longest row "
                f"(data.max_prompt_tokens, data.max_response_tokens); set "
                f"{part}.micro_batch_tokens={row}"
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
    rewarded = recipe.method_spec.uses_answer_reward
    noisy = recipe.judge.false_positive_rate > 0 or recipe.judge.false_negative_rate > 0
    unused = {
        "num_samples": recipe.num_samples > 0 and not recipe.method_spec.is_rl,
        "teachers.max_responses": recipe.teachers.max_responses > 0
        and not (recipe.method_spec.uses_teachers or recipe.sft_on_teachers),
        "reward.similarity": recipe.reward.similarity != "binary"
        and not recipe.method_spec.uses_discriminator,
        "policy.freeze": bool(recipe.policy.freeze) and not recipe.method_spec.is_rl,
        "policy.teachers_in_loss": not recipe.policy.teachers_in_loss
        and not recipe.method_spec.uses_teachers,
        "judge.false_positive_rate, judge.false_negative_rate": noisy and not rewarded,
        "schedule.export=best": recipe.schedule.export == "best" and not recipe.method_spec.is_rl,
    }
    for key, is_unused in unused.items():
        if is_unused:
            raise UserError(
                f"{key} changes nothing with method={recipe.method}; leave it out, or choose "
                "another method"
            )
    if noisy and recipe.judge.model != "rule":
        raise UserError(
            "judge.false_positive_rate and judge.false_negative_rate simulate errors of an "
            "exact judge; set judge.model=rule, or leave them out"
        )
    if recipe.judge.false_positive_rate + recipe.judge.false_negative_rate > 1:
        raise UserError(
            "judge.false_positive_rate and judge.false_negative_rate add up to more than "
            "1: the judge would prefer wrong responses; lower one"
        )
    if recipe.method_spec.uses_discriminator and not (
        recipe.discriminator.mu or recipe.discriminator.pretrain_steps
    ):
        raise UserError(
            "a discriminator with mu=0 and pretrain_steps=0 would never be trained; raise "
            "discriminator.mu or discriminator.pretrain_steps, or use method=teacher-rows"
        )
