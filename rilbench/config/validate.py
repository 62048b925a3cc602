"""Values out of range and settings that do not fit together, each refused with its remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from rilbench.config.lora_targets import ALL_LINEAR
from rilbench.config.schema import PARTS, Recipe
from rilbench.errors import UserError
from rilbench.ril.methods import METHODS

DISCRIMINATOR_PROMPT_TOKENS = 512
"""An upper bound for the discriminator's instructions and chat template around a response."""

CHOICES: dict[str, tuple[str, ...]] = {
    "method": tuple(METHODS),
    "teachers.mix": ("split", "each", "routed"),
    "reward.similarity": ("binary", "continuous"),
    "policy.freeze": PARTS,
    "schedule.export": ("last", "best"),
    "schedule.export_adapter": ("merge", "keep"),
    "hardware.device": ("cpu", "cuda"),
    "hardware.rollout_engine": ("auto", "vllm"),
    "hardware.offload": ("none", "idle", "always"),
}

SMALLEST = 1e-12
"""The smallest number that may divide another: what is divided by less is soon infinite."""

OWN_FIELDS = {"model", "messages", "stream"}
"""Fields of a request that no recipe sets."""

RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "must be at least 1": (
        lambda value: value >= 1,
        (
            "group_size",
            "collection.concurrency",
            "collection.student_responses",
            "collection.teacher_responses",
            "data.max_response_tokens",
            "discriminator.micro_batch_size",
            "hardware.devices",
            "hardware.memory_gib",
            "hardware.nodes",
            "hardware.rollout_tensor_parallel",
            "policy.lora_alpha",
            "policy.micro_batch_size",
            "policy.mini_batches",
            "policy.mu",
            "schedule.keep",
            "schedule.prompts_per_step",
            "schedule.save_every",
            "schedule.steps",
            "sft.batch_size",
        ),
    ),
    # One response of a teacher and one of the student.
    "must be at least 2": (lambda value: value >= 2, ("discriminator.pretrain_batch_size",)),
    "must not be negative": (
        lambda value: 0 <= value < math.inf,
        (
            "num_samples",
            "discriminator.micro_batch_tokens",
            "discriminator.mu",
            "discriminator.pretrain_steps",
            "hardware.judge_devices",
            "hardware.teacher_devices",
            "policy.kl_coef",
            "policy.length_scale",
            "policy.lora_rank",
            "policy.micro_batch_tokens",
            "policy.weight_decay",
            "schedule.eval_every",
            "schedule.max_wait",
            "sft.steps",
            "teachers.max_responses",
        ),
    ),
    f"must be a number above 0, at least {SMALLEST:g}": (
        lambda value: SMALLEST <= value < math.inf,
        (
            "discriminator.lr",
            "discriminator.pretrain_final_lr",
            "discriminator.pretrain_lr",
            "judge.timeout",
            "policy.clip_eps",
            "policy.lr",
            "sampling.repetition_penalty",
            "sampling.temperature",
            "sampling.top_p",
            "sft.final_lr",
            "sft.lr",
        ),
    ),
    "is more than any node has; give at most 1024": (
        lambda value: value <= 1024,
        (
            "hardware.devices",
            "hardware.judge_devices",
            "hardware.rollout_tensor_parallel",
            "hardware.teacher_devices",
        ),
    ),
    "is a share; give a number from 0 to 1": (
        lambda value: 0 <= value <= 1,
        (
            "collection.max_failed",
            "data.max_failed",
            "judge.false_negative_rate",
            "judge.false_positive_rate",
            "judge.max_missing",
        ),
    ),
    "is a share of the device's memory; give a number between 0 and 1": (
        lambda value: 0 < value < 1,
        ("hardware.rollout_memory",),
    ),
}
"""The error's words: the test that a value must pass, and the settings that it applies to."""


def check(recipe: Recipe) -> None:
    """Check a whole recipe.

    Raises:
        UserError: the first thing that is wrong, with what to set instead.
    """
    for key, allowed in CHOICES.items():
        value = _value(recipe, key)
        if value not in allowed:
            names = ", ".join(name for name in allowed if name)
            raise UserError(f"{key}={value!r} is not known; use one of {names}")
    for words, (is_valid, keys) in RANGES.items():
        for key in keys:
            value = _value(recipe, key)
            if not is_valid(value):
                raise UserError(f"{key}={value} {words}")
    checks = (
        _schedule,
        _teachers,
        _routes,
        _requests,
        _sft,
        _lora,
        _hardware,
        _unused_settings,
        _judge_noise,
    )
    for problems in checks:
        for problem in problems(recipe):
            raise UserError(problem)


def _value(recipe: Recipe, key: str) -> Any:
    return attrgetter(key)(recipe)


def _schedule(recipe: Recipe) -> Iterator[str]:
    schedule, mini_batches = recipe.schedule, recipe.policy.mini_batches
    if schedule.prompts_per_step % mini_batches:
        yield (
            f"policy.mini_batches={mini_batches} must divide "
            f"schedule.prompts_per_step={schedule.prompts_per_step}"
        )
    if schedule.export == "best" and not schedule.eval_every:
        yield "schedule.export=best needs scores on the dev split; add --eval-every N"
    elif schedule.export == "best":
        both = math.lcm(schedule.save_every, schedule.eval_every)
        if both >= schedule.steps > max(schedule.save_every, schedule.eval_every):
            yield (
                f"schedule.export=best chooses among steps that are saved and scored, and with "
                f"schedule.save_every={schedule.save_every} and "
                f"schedule.eval_every={schedule.eval_every} that is the last of "
                f"{schedule.steps} alone; set schedule.save_every={schedule.eval_every}"
            )


def _teachers(recipe: Recipe) -> Iterator[str]:
    teachers, collected = recipe.teachers, recipe.collection.teacher_responses
    if recipe.method_spec.learns_from_teachers or recipe.sft_on_teachers:
        unknown = [name for name in teachers.names if name not in teachers.models]
        if unknown or not teachers.names:
            yield (
                f"teachers.models has no model for {', '.join(unknown) or 'any teacher'}; "
                "set teachers.models.NAME=PATH"
            )
    if teachers.max_responses > collected:
        yield (
            f"teachers.max_responses={teachers.max_responses} is more than is collected; raise "
            f"collection.teacher_responses={collected}"
        )
    if recipe.method_spec.uses_discriminator and not (
        recipe.discriminator.mu or recipe.discriminator.pretrain_steps
    ):
        yield (
            "a discriminator with mu=0 and pretrain_steps=0 would never be trained; raise "
            "discriminator.mu or discriminator.pretrain_steps, or use method=teacher-rows"
        )
    if recipe.method_spec.uses_teacher_log_probs:
        if teachers.mix == "each":
            yield "a response has one teacher with method=opd; use teachers.mix=split or routed"
        for name in teachers.names:
            if recipe.collection.endpoints.get(name) and not recipe.sft_on_teachers:
                yield (
                    f"collection.endpoints.{name}: method=opd needs log-probabilities of the "
                    f"student's tokens, which a chat server does not give; leave it out and set "
                    f"teachers.models.{name}=FOLDER or OWNER/NAME"
                )


def _routes(recipe: Recipe) -> Iterator[str]:
    teachers = recipe.teachers
    if teachers.mix != "routed":
        if teachers.routes:
            yield "teachers.routes is used by teachers.mix=routed alone; set that, or leave it out"
        return
    if not teachers.routes:
        yield (
            "teachers.mix=routed needs teachers.routes: set teachers.routes.SOURCE=TEACHER for "
            "each source in the questions' `source` column, or teachers.routes.*=TEACHER"
        )
    for source, name in teachers.routes.items():
        if name not in teachers.names:
            yield (
                f"teachers.routes.{source}={name}: the recipe's teachers are "
                f"{', '.join(teachers.names)}; use one of them"
            )
    for name in teachers.names:
        if name not in teachers.routes.values():
            yield f"no source is routed to {name}: add it to teachers.routes, or leave it out"


def _requests(recipe: Recipe) -> Iterator[str]:
    """What is sent to servers, and what it costs."""
    collection, known = recipe.collection, {*recipe.teachers.models, *recipe.teachers.names}
    for setting in ("fields", "price", "serve"):
        for name in getattr(collection, setting).keys() - known - {"student"}:
            yield (
                f"collection.{setting}.{name}: the recipe has no teacher {name}; use one of "
                f"{', '.join(sorted(known))}"
            )
    given = {f"collection.fields.{name}": fields for name, fields in collection.fields.items()}
    for key, fields in {**given, "judge.fields": recipe.judge.fields}.items():
        for name in OWN_FIELDS & fields.keys():
            yield f"{key}.{name} is set by rilbench; leave it out"
        number = fields.get("n", 1)
        if not isinstance(number, int) or number < 1 or (number > 1 and key == "judge.fields"):
            yield f"{key}.n={number}: give the number of responses to one request; a judge's is 1"
    for name, prices in collection.price.items():
        if not all(0 <= price < math.inf for price in prices):
            yield f"collection.price.{name}={list(prices)}: a price must not be negative"


def _sft(recipe: Recipe) -> Iterator[str]:
    if recipe.sft.steps:
        return
    if not recipe.method_spec.is_rl:
        yield "method=sft has nothing to do with sft.steps=0; set sft.steps=N"
    if recipe.sft.data:
        yield f"sft.data={recipe.sft.data} is not used with sft.steps=0; set sft.steps=N"


def _lora(recipe: Recipe) -> Iterator[str]:
    policy, default = recipe.policy, Recipe().policy
    if recipe.discriminator.lora_rank < -1:
        yield (
            f"discriminator.lora_rank={recipe.discriminator.lora_rank} must be at least 0, or -1 "
            "for that of the policy"
        )
    if policy.lora_rank and policy.freeze:
        yield (
            f"policy.freeze={policy.freeze} is for full training: with policy.lora_rank="
            f"{policy.lora_rank} all of the student's weights are frozen; leave one out, or name "
            "the layers with an adapter in policy.lora_targets"
        )
    if not policy.lora_rank and recipe.schedule.export_adapter == "keep":
        yield (
            "schedule.export_adapter=keep: there is no adapter with policy.lora_rank=0; set "
            "policy.lora_rank, or leave it out"
        )
    if not (policy.lora_rank or recipe.discriminator_lora_rank):
        for name in ("lora_alpha", "lora_targets"):
            if getattr(policy, name) != getattr(default, name):
                yield f"policy.{name} changes nothing with policy.lora_rank=0; set policy.lora_rank"
    targets = policy.lora_targets
    if not targets or (ALL_LINEAR in targets and len(targets) > 1):
        yield (
            f"policy.lora_targets={list(targets)}: give {ALL_LINEAR}, or the names of layers or "
            "parts of the student, such as [q_proj,v_proj] or language_model"
        )
    for target in targets:
        if target != ALL_LINEAR and not re.fullmatch(r"\w+(\.\w+)*", target):
            yield f"policy.lora_targets: {target!r} is no name of a layer, such as q_proj"


def _hardware(recipe: Recipe) -> Iterator[str]:
    hardware = recipe.hardware
    if hardware.devices % hardware.rollout_tensor_parallel:
        yield (
            f"hardware.rollout_tensor_parallel={hardware.rollout_tensor_parallel} must divide the "
            f"hardware.devices={hardware.devices} of a node"
        )
    max_discriminator_tokens = recipe.data.max_response_tokens + DISCRIMINATOR_PROMPT_TOKENS
    for model, tokens, longest in (
        ("policy", recipe.policy.micro_batch_tokens, recipe.max_sequence_tokens),
        ("discriminator", recipe.discriminator.micro_batch_tokens, max_discriminator_tokens),
    ):
        if 0 < tokens < longest:
            yield (
                f"{model}.micro_batch_tokens={tokens} is less than the {longest} tokens of the "
                "longest sequence (data.max_prompt_tokens, data.max_response_tokens); set "
                f"{model}.micro_batch_tokens={longest}"
            )
    number, distils = len(recipe.teachers.names), recipe.method_spec.uses_teacher_log_probs
    served = hardware.teacher_devices >= number and hardware.teacher_devices % number == 0
    if hardware.device == "cuda" and distils and not served:
        names = " and ".join(recipe.teachers.names)
        yield (
            f"method={recipe.method} serves {names} on devices of their own while it trains, "
            f"and hardware.teacher_devices={hardware.teacher_devices}; set it to a multiple of "
            f"{number}, and hardware.devices to what is left of the node"
        )
    if hardware.device == "cpu":
        for key, is_set in (
            ("hardware.offload", hardware.offload != "none"),
            ("hardware.remove_padding", hardware.remove_padding),
            ("hardware.rollout_tensor_parallel", hardware.rollout_tensor_parallel > 1),
            ("hardware.judge_devices", hardware.judge_devices > 0),
            ("hardware.teacher_devices", hardware.teacher_devices > 0),
        ):
            if is_set:
                yield (
                    f"{key} needs GPUs, and hardware.device=cpu; use --hardware cpu, or another "
                    "profile with its own device"
                )


def _unused_settings(recipe: Recipe) -> Iterator[str]:
    """A setting that the method ignores would make two equal runs look different."""
    method, default = recipe.method_spec, Recipe()
    is_used = {
        "num_samples": method.is_rl,
        "teachers.max_responses": recipe.uses_saved_responses,
        "reward.similarity": method.uses_discriminator and not method.pairs_with_teachers,
        "reward.extra": method.is_rl and not method.uses_teacher_log_probs,
        "policy.freeze": method.is_rl,
        "discriminator.lora_rank": method.uses_discriminator,
        "policy.teachers_in_loss": method.uses_teachers,
        "policy.kl_coef": method.uses_reference or not method.is_rl,
        "judge.false_positive_rate": method.uses_answer_reward,
        "judge.false_negative_rate": method.uses_answer_reward,
        "schedule.export": method.is_rl,
        "hardware.teacher_devices": method.uses_teacher_log_probs,
    }
    for key, used in is_used.items():
        if not used and _value(recipe, key) != _value(default, key):
            yield (
                f"{key} changes nothing with method={recipe.method}; leave it out, or choose "
                "another method"
            )


def _judge_noise(recipe: Recipe) -> Iterator[str]:
    judge = recipe.judge
    if max(judge.false_positive_rate, judge.false_negative_rate) > 0 and judge.model != "rule":
        yield (
            "judge.false_positive_rate and judge.false_negative_rate simulate errors of an "
            "exact judge; set judge.model=rule, or leave them out"
        )
    if judge.false_positive_rate + judge.false_negative_rate > 1:
        yield (
            "judge.false_positive_rate and judge.false_negative_rate add up to more than 1: "
            "the judge would prefer wrong responses; lower one"
        )
