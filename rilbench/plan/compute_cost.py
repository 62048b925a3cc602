"""Tokens, FLOPs, seconds and GPU-hours, from counts and stated assumptions.

A forward costs 2 FLOPs per parameter and token, and attention 4 × layers × width × length / 2 per
token. A backward costs twice as much, or once where an adapter trains and the weights do not (its
own FLOPs are not counted); gradient checkpointing one more forward. Sampling is bound by memory:
each new token reads the weights and the cache of all sequences once. A step waits for the longest
of its responses.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from rilbench.config.schema import DISCRIMINATOR_WORDS, Recipe
from rilbench.errors import UserError
from rilbench.plan.architecture import Architecture, find_architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.fit import serving_devices
from rilbench.plan.machine import queue_bytes
from rilbench.plan.memory import GIB, Rollout
from rilbench.plan.states import WEIGHT

MAX_SEQUENCES = 256
"""Sequences that vLLM samples at once (verl's max_num_seqs)."""


@dataclass(frozen=True)
class StepCost:
    """The cost of one step of the loop, on all devices together."""

    responses: int
    sampled_tokens: float
    teacher_tokens: float
    trained_tokens: float  # prompts and responses
    flops: dict[str, float]
    seconds: dict[str, float]
    decode_tokens_per_second: float  # of one device, over the whole sampling

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


def forward_flops(model: Architecture, tokens: float, length: float, *, head: bool = True) -> float:
    """Return the FLOPs of a forward over ``tokens`` in sequences of ``length``, without vision."""
    text = model.text
    matrices = text.layers * text.layer_parameters + (model.embedding if head else 0)
    attention = 2 * text.layers * text.hidden * length
    return tokens * (2 * matrices + attention)


def vision_flops(model: Architecture, image_tokens: float) -> float:
    """Return the FLOPs of the vision tower's forward, without its attention."""
    if model.vision is None:
        return 0.0
    tower = model.vision
    return image_tokens * model.patches_per_token * 2 * tower.layers * tower.layer_parameters


def response_flops(model: Architecture, assumed: Assumptions) -> float:
    """Return the FLOPs of a forward over one prompt and response of mean length."""
    length = assumed.prompt_tokens + assumed.response_tokens
    return forward_flops(model, length, length) + vision_flops(model, assumed.image_tokens)


def step_flops(recipe: Recipe, model: Architecture, assumed: Assumptions) -> float:
    """Return the FLOPs of a forward over all responses of a step.

    Where prompts are shared, each is computed once on every device that has responses to it, and
    the head reads responses alone.
    """
    responses = recipe.responses_per_step
    if not recipe.rows_together:
        return responses * response_flops(model, assumed)
    ranks = recipe.hardware.ranks
    prompts = ranks * math.ceil(recipe.schedule.prompts_per_step / ranks)
    prompt = forward_flops(model, assumed.prompt_tokens, assumed.prompt_tokens, head=False)
    prompt += vision_flops(model, assumed.image_tokens)
    # A token of a response sees the whole prompt, and half of the response in the mean.
    seen = 2 * assumed.prompt_tokens + assumed.response_tokens
    return prompts * prompt + responses * forward_flops(model, assumed.response_tokens, seen)


def training_factor(recipe: Recipe, lora_rank: int) -> int:
    """Return the cost of a forward and a backward, in forwards."""
    return (2 if lora_rank else 3) + recipe.hardware.gradient_checkpointing


def decode_seconds(
    model: Architecture, sequences: float, parallel: int, compute: int, assumed: Assumptions
) -> float:
    """Return the seconds for one more token of each sequence, on ``parallel`` devices."""
    context = assumed.prompt_tokens + assumed.response_tokens / 2
    cache = sequences * context * model.kv_bytes * compute / 2
    weights = compute * (model.parameters - model.vision_parameters)
    speed = assumed.bandwidth * 1e9 * assumed.decode_efficiency * parallel
    return (weights + cache) / speed


def plan_step(
    recipe: Recipe, student: Architecture, rollout: Rollout, assumed: Assumptions
) -> StepCost:
    """Return the cost of one step of the loop."""
    prompts, responses = recipe.schedule.prompts_per_step, recipe.responses_per_step
    length = assumed.prompt_tokens + assumed.response_tokens
    forward = step_flops(recipe, student, assumed)
    prompt = forward_flops(student, assumed.prompt_tokens, assumed.prompt_tokens)
    prompt += vision_flops(student, assumed.image_tokens)
    flops = {"sampling: prompts": prompts * prompt}
    if recipe.method_spec.uses_discriminator:
        update = training_factor(recipe, recipe.discriminator_lora_rank)
        pairs = recipe.method_spec.pairs_with_teachers
        # Updates, then scores. A pair has a row more, and is scored before each of its updates.
        forwards = recipe.discriminator.mu * (update + pairs) + 1
        rows = responses * (2 if pairs else 1)
        flops["discriminator"] = rows * discriminator_flops(recipe, student, assumed) * forwards
    if recipe.uses_reference:
        flops["reference"] = forward
    if recipe.policy.mu > 1 or recipe.policy.mini_batches > 1:
        flops["old probabilities"] = forward
    flops["policy"] = forward * recipe.policy.mu * training_factor(recipe, recipe.policy.lora_rank)
    speed = assumed.tflops * 1e12 * assumed.mfu  # of a device
    seconds = {name: count / speed / recipe.hardware.ranks for name, count in flops.items()}
    if "discriminator" in seconds:
        seconds["discriminator"] *= assumed.discriminator_imbalance
    if scoring := scoring_flops(recipe, assumed):
        # On devices of their own, side by side: the step waits for the slowest.
        devices = max(1, recipe.hardware.teacher_devices // len(recipe.teachers.names))
        flops["teachers' log-probabilities"] = sum(scoring)
        seconds["teachers' log-probabilities"] = max(scoring) / speed / devices
    decode = sampling_seconds(recipe, student, rollout, assumed)
    of_a_device = prompts * recipe.num_student_responses / recipe.hardware.ranks
    return StepCost(
        responses=responses,
        sampled_tokens=prompts * recipe.num_student_responses * assumed.response_tokens,
        teacher_tokens=prompts * recipe.num_teacher_responses * assumed.response_tokens,
        trained_tokens=responses * length,
        flops=flops,
        seconds={
            "sampling: responses": decode,
            **seconds,
            "queue": _queue_seconds(recipe, student, assumed),
            "weights to the rollout engine": WEIGHT * student.parameters / 1e9 / assumed.sync_gb,
        },
        decode_tokens_per_second=of_a_device * assumed.response_tokens / decode,
    )


def scoring_flops(recipe: Recipe, assumed: Assumptions) -> list[float]:
    """Return the FLOPs of each teacher that scores a step's responses; none with saved responses.

    Each response is read by one teacher, prompt and pictures again. A teacher of unknown shape,
    behind a folder on another machine, is left out.
    """
    if not recipe.method_spec.uses_teacher_log_probs:
        return []
    found = []
    for name in recipe.teachers.names:
        with suppress(UserError):
            found.append(response_flops(find_architecture(recipe.teachers.models[name]), assumed))
    share = recipe.responses_per_step / len(recipe.teachers.names)
    return [share * flops for flops in found]


def sampling_seconds(
    recipe: Recipe, student: Architecture, rollout: Rollout, assumed: Assumptions
) -> float:
    """Return the seconds until the last response of a step is sampled.

    As many sequences at once as the cache holds; a finished one makes room for the next. The last
    ones run until the longest is done, while the weights are read for ever fewer sequences.
    """
    compute = 4 if recipe.hardware.device == "cpu" else 2
    parallel = recipe.hardware.rollout_tensor_parallel
    wanted = rollout.sequences_wanted
    at_once = max(1, min(wanted, rollout.sequences_at_once, MAX_SEQUENCES))
    longest = max(assumed.longest_response_tokens, assumed.response_tokens)
    rounds = longest + (wanted / at_once - 1) * assumed.response_tokens
    weights = rounds * decode_seconds(student, 0, parallel, compute, assumed)
    each = decode_seconds(student, wanted, parallel, compute, assumed)
    cache = each - decode_seconds(student, 0, parallel, compute, assumed)
    return weights + cache * assumed.response_tokens


def _queue_seconds(recipe: Recipe, student: Architecture, assumed: Assumptions) -> float:
    """Return the seconds for a step to pass through TransferQueue.

    The rollout workers put it in; the ranks read it, side by side, for each pass over the batch.
    """
    policy = recipe.policy
    reads = policy.mu + recipe.uses_reference + (policy.mu > 1 or policy.mini_batches > 1)
    size = queue_bytes(recipe, student, assumed) * (1 + reads / recipe.hardware.ranks)
    return size / GIB / assumed.queue_gib


def discriminator_flops(recipe: Recipe, student: Architecture, assumed: Assumptions) -> float:
    """Return the FLOPs of the discriminator's forward over one response of mean length.

    What stands before every response is computed once where prompts are shared, and not counted.
    One that compares pairs reads the question's text with each.
    """
    words = 0 if recipe.rows_together else DISCRIMINATOR_WORDS
    if recipe.method_spec.pairs_with_teachers:
        words += assumed.prompt_tokens - assumed.image_tokens
    length = assumed.response_tokens + words
    return forward_flops(student, length, length, head=False)


def collect_hours(
    recipe: Recipe, model: Architecture, responses: int, assumed: Assumptions
) -> float:
    """Return the GPU-hours to collect responses from one served model.

    Args:
        recipe: the run.
        model: the served model.
        responses: number for each question.
        assumed: lengths and speeds.
    """
    cpu = recipe.hardware.device == "cpu"
    devices = 1 if cpu else serving_devices(model, recipe.hardware.memory_gib)
    compute = 4 if cpu else 2
    free = recipe.hardware.memory_gib * GIB * 0.9 * devices - compute * model.parameters
    context = assumed.prompt_tokens + assumed.response_tokens
    room = free // (model.kv_bytes * compute / 2 * context)
    at_once = max(1.0, min(recipe.collection.concurrency, room))
    token = decode_seconds(model, at_once, devices, compute, assumed)
    decode = assumed.questions * responses * assumed.response_tokens * token / at_once
    prompt = forward_flops(model, assumed.prompt_tokens, assumed.prompt_tokens)
    prompts = assumed.questions * (prompt + vision_flops(model, assumed.image_tokens))
    prompts /= devices * assumed.tflops * 1e12 * assumed.mfu
    return (decode + prompts) * devices / 3600
