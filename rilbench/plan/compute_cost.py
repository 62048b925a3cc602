"""Tokens, FLOPs, seconds and GPU-hours, from counts and stated assumptions.

A forward costs 2 FLOPs for each parameter and token, and attention 4 × layers × width × length / 2
for each token; a backward twice as much, and gradient checkpointing one forward more. Sampling is
bound by memory: each new token reads the weights and the cache of all rows once.
"""

from __future__ import annotations

from dataclasses import dataclass

from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.fit import serving_devices
from rilbench.plan.memory import DISCRIMINATOR_WORDS, GIB, Rollout

MOST_ROWS = 256
"""Rows that vLLM samples at once (verl's max_num_seqs)."""


@dataclass(frozen=True)
class Step:
    """One step of the loop, on all devices together."""

    rows: int
    sampled_tokens: float
    teacher_tokens: float
    trained_tokens: float  # prompts and responses
    flops: dict[str, float]
    seconds: dict[str, float]
    decode_tokens_per_second: float  # of one device

    @property
    def total_seconds(self) -> float:
        """Seconds of the whole step."""
        return sum(self.seconds.values())


def forward_flops(model: Architecture, tokens: float, length: float, *, head: bool = True) -> float:
    """FLOPs of a forward over ``tokens`` in rows of ``length``, without the vision tower."""
    text = model.text
    matrices = text.layers * text.layer_parameters + (model.embedding if head else 0)
    attention = 2 * text.layers * text.hidden * length
    return tokens * (2 * matrices + attention)


def vision_flops(model: Architecture, image_tokens: float) -> float:
    """FLOPs of the vision tower's forward; its attention is left out."""
    if model.vision is None:
        return 0.0
    tower = model.vision
    return image_tokens * model.patches_per_token * 2 * tower.layers * tower.layer_parameters


def row_flops(model: Architecture, assumed: Assumptions) -> float:
    """FLOPs of a forward over one mean row."""
    length = assumed.prompt_tokens + assumed.response_tokens
    return forward_flops(model, length, length) + vision_flops(model, assumed.image_tokens)


def training_factor(recipe: Recipe) -> int:
    """Forwards that a forward and a backward cost."""
    return 4 if recipe.hardware.gradient_checkpointing else 3


def decode_seconds(
    model: Architecture, rows: float, parallel: int, compute: int, assumed: Assumptions
) -> float:
    """Seconds in which each of ``rows`` gets one more token, on ``parallel`` devices."""
    context = assumed.prompt_tokens + assumed.response_tokens / 2
    cache = rows * context * model.kv_bytes * compute / 2
    weights = compute * (model.parameters - model.vision_parameters)
    speed = assumed.bandwidth * 1e9 * assumed.decode_efficiency * parallel
    return (weights + cache) / speed


def plan_step(
    recipe: Recipe, student: Architecture, rollout: Rollout, assumed: Assumptions
) -> Step:
    """One step of the loop."""
    questions, rows = recipe.schedule.prompts_per_step, recipe.responses_per_step
    length = assumed.prompt_tokens + assumed.response_tokens
    one = row_flops(student, assumed)
    flops = {
        "sampling: prompts": questions
        * (
            forward_flops(student, assumed.prompt_tokens, assumed.prompt_tokens)
            + vision_flops(student, assumed.image_tokens)
        )
    }
    if recipe.method_spec.uses_discriminator:
        flops["discriminator"] = (
            rows
            * discriminator_row(recipe, student, assumed)
            * (
                recipe.discriminator.mu * training_factor(recipe) + 1  # and it judges
            )
        )
    if recipe.policy.kl_coef > 0:
        flops["reference"] = rows * one
    if recipe.policy.mu > 1 or recipe.policy.mini_batches > 1:
        flops["old probabilities"] = rows * one
    flops["policy"] = rows * one * recipe.policy.mu * training_factor(recipe)
    speed = recipe.hardware.ranks * assumed.tflops * 1e12 * assumed.mfu
    seconds = {name: each / speed for name, each in flops.items()}
    decode, per_device = _sampling(recipe, student, rollout, assumed)
    return Step(
        rows=rows,
        sampled_tokens=questions * recipe.num_student_responses * assumed.response_tokens,
        teacher_tokens=questions * recipe.num_teacher_responses * assumed.response_tokens,
        trained_tokens=rows * length,
        flops=flops,
        seconds={"sampling: responses": decode, **seconds},
        decode_tokens_per_second=per_device,
    )


def _sampling(
    recipe: Recipe, student: Architecture, rollout: Rollout, assumed: Assumptions
) -> tuple[float, float]:
    """Seconds to sample a step's responses, and tokens per second of one device."""
    compute = 4 if recipe.hardware.device == "cpu" else 2
    parallel = recipe.hardware.rollout_tensor_parallel
    at_once = max(1, min(rollout.rows_wanted, rollout.rows_at_once, MOST_ROWS))
    waves = -(-rollout.rows_wanted // at_once)
    each = decode_seconds(student, at_once, parallel, compute, assumed)
    return waves * assumed.response_tokens * each, at_once / each / parallel


def discriminator_row(recipe: Recipe, student: Architecture, assumed: Assumptions) -> float:
    """FLOPs of the discriminator's forward over one mean row."""
    length = assumed.response_tokens + DISCRIMINATOR_WORDS
    return forward_flops(student, length, length, head=False)


def collect_hours(
    recipe: Recipe, model: Architecture, responses: int, assumed: Assumptions
) -> tuple[float, int]:
    """GPU-hours to collect responses from one served model, and GPUs of the server."""
    devices = (
        1 if recipe.hardware.device == "cpu" else serving_devices(model, recipe.hardware.memory_gib)
    )
    compute = 4 if recipe.hardware.device == "cpu" else 2
    free = recipe.hardware.memory_gib * GIB * 0.9 * devices - compute * model.parameters
    context = assumed.prompt_tokens + assumed.response_tokens
    room = free // (model.kv_bytes * compute / 2 * context)
    rows = max(1.0, min(recipe.collection.concurrency, room))
    each = decode_seconds(model, rows, devices, compute, assumed)
    decode = assumed.questions * responses * assumed.response_tokens * each / rows
    prompt = forward_flops(model, assumed.prompt_tokens, assumed.prompt_tokens)
    prompts = assumed.questions * (prompt + vision_flops(model, assumed.image_tokens))
    prompts /= devices * assumed.tflops * 1e12 * assumed.mfu
    return (decode + prompts) * devices / 3600, devices
