"""Memory and disk of a machine, in bytes, by what takes them."""

from __future__ import annotations

from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.memory import GIB, Memory
from rilbench.plan.states import (
    WEIGHT,
    compute_bytes,
    discriminator_states,
    linear_layers,
    policy_states,
)

QUEUE_BYTES_PER_TOKEN = 80
"""Ids, masks, four positions, log-probabilities and advantages of a token in TransferQueue."""
ROLLOUT_WORKERS = 8
"""Processes of verl's agent loop on GPUs (``agent.num_workers``); one on a CPU."""
OTHER_PROCESSES = 6
"""Command line, Ray's own, and at least two of TransferQueue's, about."""


def pixel_bytes(model: Architecture, assumed: Assumptions) -> float:
    """Return the bytes of one question's pictures as the model reads them, in float32."""
    return 4.0 * assumed.image_tokens * model.patches_per_token * model.patch_values


def queue_bytes(recipe: Recipe, student: Architecture, assumed: Assumptions) -> float:
    """Return the bytes of a step in TransferQueue: responses, and pictures with each or a few."""
    length = assumed.prompt_tokens + assumed.response_tokens
    pictures = pixel_bytes(student, assumed) / max(1, recipe.rows_together)
    one = pictures + length * QUEUE_BYTES_PER_TOKEN
    return recipe.responses_per_step * one


def pinned(student: Architecture, ranks: int) -> float:
    """Return how much more memory weights in pinned memory take than they have bytes.

    torch rounds each allocation up to a power of two, and each weight's share on a rank is one.
    Counted for linear layers, embedding and head in float32; the rest is small.
    """
    embedding = (student.text.hidden, student.vocabulary)
    weights = [*linear_layers(student).values(), *[embedding] * (1 if student.tied else 2)]
    shares = [inputs * -(-outputs // ranks) * WEIGHT for inputs, outputs in weights]
    return sum(1 << (share - 1).bit_length() for share in shares) / sum(shares)


def host_memory(
    recipe: Recipe, student: Architecture, device: Memory, assumed: Assumptions
) -> dict[str, float]:
    """Return the memory of each machine, by what takes it; on a CPU that is the device's too.

    On GPUs verl keeps the reference and what is offloaded in pinned memory; with LoRA there is no
    reference beside the policy. A
    model is loaded by the first rank alone and built on the meta device by the others, unless its
    head is tied: then every rank loads it. It is gathered whole on the first rank again when it is
    saved.
    """
    hardware, spec = recipe.hardware, recipe.method_spec
    cpu = hardware.device == "cpu"
    share = hardware.devices / hardware.ranks
    growth = 1.0 if cpu else pinned(student, hardware.ranks)
    trained = policy_states(recipe, student), discriminator_states(recipe, student)
    found = {"models at work": device.peak - device.reserved} if cpu else {}
    if recipe.uses_reference and not recipe.policy.lora_rank:
        found["reference"] = WEIGHT * student.parameters * share * growth
    if hardware.offload != "none":
        always = hardware.offload == "always"
        offloaded = sum(each.total if always else each.waiting for each in trained)
        found["offloaded models and optimizers"] = offloaded * share * growth
    loaders = hardware.devices if student.tied else 1
    found["a model while it is loaded or saved"] = float(WEIGHT * student.parameters * loaders)
    workers = 1 if cpu else ROLLOUT_WORKERS
    of_a_device = 2 if cpu else 3  # a rank, the rollout server, and vLLM's engine
    processes = of_a_device * hardware.devices + workers + OTHER_PROCESSES
    found["processes"] = processes * assumed.process_gib * GIB
    if spec.is_rl:
        found["pictures of a step"] = recipe.schedule.prompts_per_step * pixel_bytes(
            student, assumed
        )
        found["queue"] = queue_bytes(recipe, student, assumed)
        found["trainer"] = assumed.trainer_gib * GIB
    return found


def disk(
    recipe: Recipe, student: Architecture, responses: dict[str, int], assumed: Assumptions
) -> dict[str, float]:
    """Return the bytes in a run's folder, by what takes them.

    Args:
        recipe: the run.
        student: its student.
        responses: number to collect, by model.
        assumed: lengths and sizes.
    """
    text = assumed.response_tokens * assumed.bytes_per_token
    found = {"collection": sum(responses.values()) * text}
    # In the student's own dtype: the paper's came in bf16, the nano ones in float32.
    export = float((2 if recipe.hardware.device == "cuda" else WEIGHT) * student.parameters)
    if recipe.method_spec.is_rl:
        found |= _training_files(recipe, student, responses, assumed)
        one = saved_step(recipe, student)
        if recipe.method_spec.uses_discriminator and recipe.discriminator.pretrain_steps:
            found["pretrained discriminator"] = discriminator_states(recipe, student).waiting
        saved = max(1, recipe.schedule.steps // recipe.schedule.save_every)
        kept = saved if recipe.schedule.export == "best" else min(saved, recipe.schedule.keep)
        found[f"{kept} saved steps"] = one * kept
        found["a step while it is saved"] = one
    if recipe.sft.steps:
        found["sft"] = _saved_policy(recipe, student) + export
    found["export"] = export
    return found


def saved_step(recipe: Recipe, student: Architecture) -> float:
    """Return the bytes of one saved step: policy, discriminator, both optimizers."""
    return _saved_policy(recipe, student) + discriminator_states(recipe, student).waiting


def _saved_policy(recipe: Recipe, student: Architecture) -> float:
    """Return the bytes of a saved policy and its optimizer; an adapter's base is not saved."""
    states = policy_states(recipe, student)
    base = compute_bytes(recipe) * student.parameters if recipe.policy.lora_rank else 0
    return states.waiting - base


def _training_files(
    recipe: Recipe, student: Architecture, responses: dict[str, int], assumed: Assumptions
) -> dict[str, float]:
    """Return what ``data/`` holds, and the data set's cache, which goes when the run ends."""
    pixels = assumed.image_tokens * student.patches_per_token * student.patch_pixels
    train = assumed.questions * assumed.prompt_tokens * assumed.bytes_per_token
    text = assumed.response_tokens * assumed.bytes_per_token
    return {
        "data/pictures.arrow": assumed.questions * pixels * assumed.bytes_per_pixel,
        "data/responses.arrow": sum(responses.values()) * text,
        "data/train.parquet": train,
        "its cache while the run goes on": train,
    }
