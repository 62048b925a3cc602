"""Memory of one device in bytes, by part and phase of a step.

verl trains with float32 weights, gradients and two float32 moments of AdamW (or an adapter's:
`rilbench.plan.states`), sharded over all devices (FSDP2), and computes in bf16 on GPUs and in
float32 on a CPU. Policy, discriminator and the
sampling engine work one after another on the same devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture, Tower
from rilbench.plan.assumptions import Assumptions
from rilbench.plan.states import (
    GRADIENT,
    States,
    compute_bytes,
    discriminator_states,
    policy_states,
)

GIB = 2**30
ENTROPY_PIECE = 2048
"""Tokens of one chunk of verl's entropy, computed in float32 on GPUs."""


@dataclass(frozen=True)
class Trained:
    """Memory of one trained model on one device, and what an update adds.

    Logits and recomputed layers do not meet: the logits are gone before the first layer's backward.
    """

    weights: float
    gradients: float
    optimiser: float
    gathered: float  # whole layers while they compute, and their gradients
    activations: float  # until the backward; with gradient checkpointing the layers' inputs
    activations_unchecked: float  # if there were no gradient checkpointing
    recomputed: float  # activations and gradients of the layer whose backward runs
    logits: float  # with their gradient
    working: float  # of a forward without gradient: logits or a layer

    @property
    def at_work(self) -> float:
        """Bytes during its update."""
        states = self.weights + self.gradients + self.optimiser
        return states + self.activations + max(self.logits, self.gathered + self.recomputed)

    @property
    def forward(self) -> float:
        """Bytes during a forward without gradient."""
        return self.waiting + self.working

    @property
    def waiting(self) -> float:
        """Bytes while another phase runs and nothing is offloaded."""
        return self.weights + self.optimiser


@dataclass(frozen=True)
class Rollout:
    """The sampling engine on one device."""

    weights: float
    kv_cache: float  # the rest of its share
    sequence_bytes: float  # of the KV cache, for one of the longest sequences
    sequences_wanted: int  # per step and copy of the engine

    @property
    def sequences_at_once(self) -> int:
        """Longest sequences that the cache holds."""
        return max(0, int(self.kv_cache // self.sequence_bytes))


@dataclass(frozen=True)
class Memory:
    """Memory of one device."""

    policy: Trained
    discriminator: Trained | None
    reference: float
    rollout: Rollout
    reserved: float
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """Bytes of the phase that needs the most."""
        return max(self.phases.values())


def plan_memory(recipe: Recipe, student: Architecture, assumed: Assumptions) -> Memory:
    """Return the memory of a run, by part and phase."""
    policy = _policy(recipe, student, assumed)
    discriminator = (
        _discriminator(recipe, student) if recipe.method_spec.uses_discriminator else None
    )
    rollout = _rollout(recipe, student)
    reference = policy.working if recipe.uses_reference else 0.0
    reserved = assumed.reserved_gib * GIB
    offloaded = recipe.hardware.offload != "none"
    waits_policy = 0.0 if offloaded else policy.waiting
    waits_d = 0.0 if offloaded or discriminator is None else discriminator.waiting
    phases: dict[str, float] = {}
    if recipe.method_spec.is_rl:
        phases["sampling"] = rollout.weights + rollout.kv_cache + waits_policy + waits_d + reserved
    phases["policy update"] = policy.at_work + waits_d + reserved
    if discriminator is not None:
        phases["discriminator update"] = discriminator.at_work + waits_policy + reserved
    return Memory(policy, discriminator, reference, rollout, reserved, phases)


def _micro_batch_tokens(size: int, tokens: int, longest: int, batch: int) -> int:
    """Return the most tokens of a micro-batch, which is limited by tokens or by responses."""
    return tokens or min(size, batch) * longest


def _policy(recipe: Recipe, student: Architecture, assumed: Assumptions) -> Trained:
    compute = compute_bytes(recipe)
    batch = max(1, recipe.responses_per_step // recipe.hardware.ranks // recipe.policy.mini_batches)
    if not recipe.method_spec.is_rl:
        batch = max(1, recipe.sft.batch_size // recipe.hardware.devices)
    tokens = _micro_batch_tokens(
        recipe.policy.micro_batch_size,
        recipe.policy.micro_batch_tokens,
        recipe.max_sequence_tokens,
        batch,
    )
    images = tokens * assumed.image_tokens / (assumed.prompt_tokens + assumed.response_tokens)
    # verl computes the entropy of padded rows in one piece.
    padded = not (recipe.hardware.share_prompts or recipe.hardware.remove_padding)
    in_pieces = recipe.hardware.device == "cuda" and not padded
    return _trained(
        recipe,
        student,
        tokens,
        images,
        policy_states(recipe, student),
        logits=logits_bytes(student, tokens, compute, pieces=in_pieces),
        head=compute * (tokens * student.vocabulary + 2.0 * student.embedding),
    )


def _discriminator(recipe: Recipe, student: Architecture) -> Trained:
    batch = max(1, recipe.responses_per_step // recipe.hardware.ranks)
    settings = recipe.discriminator
    tokens = _micro_batch_tokens(
        settings.micro_batch_size,
        settings.micro_batch_tokens,
        recipe.max_discriminator_tokens,
        batch,
    )
    states = discriminator_states(recipe, student)
    return _trained(recipe, student, tokens, 0.0, states, logits=0.0, head=0.0)


def _trained(
    recipe: Recipe,
    student: Architecture,
    tokens: float,
    images: float,
    states: States,
    *,
    logits: float,
    head: float,
) -> Trained:
    """Return the memory of a model around the student's decoder.

    Args:
        recipe: the run.
        student: the shape.
        tokens: of a micro-batch.
        images: how many of them are of images.
        states: its weights, gradients and moments on all devices.
        logits: bytes of the logits in an update.
        head: bytes of the logits in a forward without gradient, and of the gathered head.
    """
    compute, checkpoint = compute_bytes(recipe), recipe.hardware.gradient_checkpointing
    repeat = not recipe.hardware.remove_padding
    full = text_activations(student, tokens, compute, repeat_kv=repeat)
    full += vision_activations(student, images, compute)
    kept = text_activations(student, tokens, compute, repeat_kv=repeat, checkpoint=True)
    kept += vision_activations(student, images, compute, checkpoint=True)
    text = student.text
    gradients_of_a_layer = 2.0 * compute * tokens * text.intermediate
    one = layer_activations(
        text, text.hidden if repeat else student.kv_width, tokens, compute, _rope(student)
    )
    share = 0.0 if recipe.hardware.offload == "always" else 1 / recipe.hardware.ranks
    root = compute * student.embedding if student.tied else 0.0
    layer_forward = 3.0 * compute * (tokens * text.intermediate + text.layer_parameters)
    return Trained(
        share * states.weights,
        share * states.gradients,
        share * states.moments,
        gathered=root + _gathered(student, compute, states),
        activations=kept if checkpoint else full,
        activations_unchecked=full,
        recomputed=one + gradients_of_a_layer if checkpoint else gradients_of_a_layer,
        logits=logits,
        working=root + max(head, layer_forward),
    )


def _rope(student: Architecture) -> int:
    """Return the width of the cosines and sines that each layer keeps."""
    return student.head_size if student.layout == "qwen2_5_vl" else 0


def _gathered(student: Architecture, compute: int, states: States) -> float:
    """Return what FSDP2 holds of whole layers in a backward.

    Two layers unsharded, the buffer of one, and a layer's gradients in both precisions.
    """
    layer = student.text.layer_parameters
    trained = min(layer, states.gradients / GRADIENT / student.text.layers)
    return 3.0 * compute * layer + (compute + GRADIENT) * trained


def layer_activations(
    tower: Tower, kv_width: int, tokens: float, compute: int, rope: int = 0
) -> float:
    """Return the bytes that autograd keeps of one layer.

    Two RMSNorms keep their input in float32, the normed values and the result. Attention keeps
    queries, keys, values, its output twice (before and after the transpose) and a float32 for each
    head. A gated MLP keeps gate, SiLU, up and product; an ungated one its first result and GELU's.

    Args:
        tower: the stack that the layer belongs to.
        kv_width: width of the keys as attention reads them.
        tokens: tokens of the micro-batch.
        compute: bytes of a number in the forward.
        rope: width of the cosines and sines that this layer keeps.
    """
    h, wide = tower.hidden, (4 if tower.gated else 2) * tower.intermediate
    norms = 2 * (4 + 2 * compute) * h
    attention = compute * (3 * h + 2 * kv_width + 2 * rope) + 4 * tower.heads
    return tokens * (norms + attention + compute * wide)


def text_activations(
    model: Architecture,
    tokens: float,
    compute: int,
    *,
    repeat_kv: bool = False,
    checkpoint: bool = False,
) -> float:
    """Return the bytes that a forward of the text model keeps for the backward, without logits.

    Args:
        model: its shape.
        tokens: tokens of the micro-batch.
        compute: bytes of a number in the forward.
        repeat_kv: keys and values are repeated for each query head, as with a padding mask.
        checkpoint: keep only the layers' inputs.
    """
    text = model.text
    kv_width = text.hidden if repeat_kv else model.kv_width
    one = layer_activations(text, kv_width, tokens, compute, _rope(model))
    last_norm = tokens * (4 + 2 * compute) * text.hidden
    if checkpoint:
        return text.layers * tokens * compute * text.hidden + last_norm
    return text.layers * one + last_norm


def vision_activations(
    model: Architecture, image_tokens: float, compute: int, *, checkpoint: bool = False
) -> float:
    """Return the bytes that vision tower and projector keep for the backward."""
    if model.vision is None:
        return 0.0
    tower, patches = model.vision, image_tokens * model.patches_per_token
    one = layer_activations(tower, tower.hidden, patches, compute)
    projector = patches * (4 + 2 * compute) * tower.hidden  # its norm
    projector += 2 * compute * patches * tower.hidden  # the first result and GELU's
    if checkpoint:
        return tower.layers * patches * compute * tower.hidden + projector
    return tower.layers * one + projector


def logits_bytes(model: Architecture, tokens: float, compute: int, *, pieces: bool) -> float:
    """Return the bytes of the logits with their gradient, or with a chunk of the entropy if more.

    An entropy chunk is three tensors of float32 unless torch.compile fuses them.
    """
    one = float(compute) * tokens * model.vocabulary
    chunk = 3.0 * 4 * min(tokens, ENTROPY_PIECE) * model.vocabulary if pieces else 0.0
    return one + max(one, chunk)


def _rollout(recipe: Recipe, student: Architecture) -> Rollout:
    hardware = recipe.hardware
    parallel = hardware.rollout_tensor_parallel
    copies = hardware.ranks // parallel
    wanted = -(-recipe.schedule.prompts_per_step * recipe.num_student_responses // copies)
    compute = compute_bytes(recipe)
    longest = student.kv_bytes * compute / 2 * recipe.max_sequence_tokens / parallel
    weights = compute * student.parameters / parallel
    if hardware.device == "cpu":  # nothing is reserved: the cache grows with the sequences
        return Rollout(weights, wanted * longest, longest, wanted)
    share = hardware.rollout_memory * hardware.memory_gib * GIB
    return Rollout(weights, max(0.0, share - weights), longest, wanted)
