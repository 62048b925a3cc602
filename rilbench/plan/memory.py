"""Memory of one device in bytes, by part and phase of a step.

verl trains with float32 weights, gradients and two float32 moments of AdamW, sharded over all
devices (FSDP2), and computes in bf16 on GPUs and in float32 on a CPU. Policy, discriminator and the
sampling engine work one after another on the same devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture, Tower
from rilbench.plan.assumptions import Assumptions

GIB = 2**30
WEIGHT, GRADIENT, MOMENTS = 4, 4, 8
"""Bytes for one trained parameter, in float32."""
ENTROPY_PIECE = 2048
"""Tokens of one chunk of verl's entropy, computed in float32 on GPUs."""
DISCRIMINATOR_WORDS = 64
"""Tokens that the discriminator's prompt adds to a response, about."""


@dataclass(frozen=True)
class Trained:
    """Memory of one trained model on one device, and what an update adds."""

    weights: float
    gradients: float
    optimiser: float
    gathered: float  # whole layers while they compute
    activations: float
    activations_unchecked: float  # if there were no gradient checkpointing
    logits: float

    @property
    def at_work(self) -> float:
        """Bytes during its update."""
        return (
            self.weights
            + self.gradients
            + self.optimiser
            + self.gathered
            + self.activations
            + self.logits
        )

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
    layer = student.text.layer_parameters
    reference = _compute_bytes(recipe) * 2.0 * layer if recipe.policy.kl_coef > 0 else 0.0
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


def _compute_bytes(recipe: Recipe) -> int:
    return 4 if recipe.hardware.device == "cpu" else 2


def states(parameters: int, recipe: Recipe) -> tuple[float, float, float]:
    """Return the bytes of weights, gradients and moments of a trained model on one device."""
    if recipe.hardware.offload == "always":
        return 0.0, 0.0, 0.0
    share = parameters / recipe.hardware.ranks
    return WEIGHT * share, GRADIENT * share, MOMENTS * share


def _micro_batch_tokens(size: int, tokens: int, longest: int, batch: int) -> int:
    """Return the most tokens of a micro-batch, which is limited by tokens or by responses."""
    return tokens or min(size, batch) * longest


def _policy(recipe: Recipe, student: Architecture, assumed: Assumptions) -> Trained:
    compute = _compute_bytes(recipe)
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
    packed = recipe.hardware.remove_padding
    full = text_activations(student, tokens, compute, repeat_kv=not packed)
    full += vision_activations(student, images, compute)
    kept = text_activations(student, tokens, compute, repeat_kv=not packed, checkpoint=True)
    kept += vision_activations(student, images, compute, checkpoint=True)
    weights, gradients, optimiser = states(student.parameters, recipe)
    return Trained(
        weights,
        gradients,
        optimiser,
        gathered=_gathered(student, student.embedding + student.head, compute),
        activations=kept if recipe.hardware.gradient_checkpointing else full,
        activations_unchecked=full,
        logits=logits_bytes(student, tokens, compute, pieces=recipe.hardware.device == "cuda"),
    )


def _discriminator(recipe: Recipe, student: Architecture) -> Trained:
    compute = _compute_bytes(recipe)
    longest = recipe.data.max_response_tokens + DISCRIMINATOR_WORDS
    batch = max(1, recipe.responses_per_step // recipe.hardware.ranks)
    settings = recipe.discriminator
    tokens = _micro_batch_tokens(
        settings.micro_batch_size, settings.micro_batch_tokens, longest, batch
    )
    repeat = not recipe.hardware.remove_padding
    full = text_activations(student, tokens, compute, repeat_kv=repeat)
    kept = text_activations(student, tokens, compute, repeat_kv=repeat, checkpoint=True)
    weights, gradients, optimiser = states(student.discriminator, recipe)
    return Trained(
        weights,
        gradients,
        optimiser,
        gathered=_gathered(student, student.embedding, compute),
        activations=kept if recipe.hardware.gradient_checkpointing else full,
        activations_unchecked=full,
        logits=0.0,
    )


def _gathered(student: Architecture, root: int, compute: int) -> float:
    """Return what FSDP2 holds unsharded: the root's parameters, two layers, a layer's gradients."""
    layer = student.text.layer_parameters
    return compute * (root + 2.0 * layer) + (compute + GRADIENT) * layer


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
        checkpoint: keep only the layers' inputs, and recompute one layer at a time.
    """
    text = model.text
    kv_width = text.hidden if repeat_kv else model.kv_width
    rope = model.head_size if model.layout == "qwen2_5_vl" else 0
    one = layer_activations(text, kv_width, tokens, compute, rope)
    last_norm = tokens * (4 + 2 * compute) * text.hidden
    if checkpoint:
        return text.layers * tokens * compute * text.hidden + one + last_norm
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
        return tower.layers * patches * compute * tower.hidden + one + projector
    return tower.layers * one + projector


def logits_bytes(model: Architecture, tokens: float, compute: int, *, pieces: bool) -> float:
    """Return the bytes of the logits and their gradient, with ``pieces`` also an entropy chunk."""
    both = 2.0 * compute * tokens * model.vocabulary
    piece = 2.0 * 4 * min(tokens, ENTROPY_PIECE) * model.vocabulary if pieces else 0.0
    return both + piece


def _rollout(recipe: Recipe, student: Architecture) -> Rollout:
    hardware = recipe.hardware
    parallel = hardware.rollout_tensor_parallel
    copies = hardware.ranks // parallel
    wanted = -(-recipe.schedule.prompts_per_step * recipe.num_student_responses // copies)
    compute = _compute_bytes(recipe)
    longest = student.kv_bytes * compute / 2 * recipe.max_sequence_tokens / parallel
    weights = compute * student.parameters / parallel
    if hardware.device == "cpu":  # nothing is reserved: the cache grows with the sequences
        return Rollout(weights, wanted * longest, longest, wanted)
    share = hardware.rollout_memory * hardware.memory_gib * GIB
    return Rollout(weights, max(0.0, share - weights), longest, wanted)
