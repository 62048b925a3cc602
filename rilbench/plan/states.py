"""Bytes of weights, gradients and AdamW's moments of the trained models, on all devices together.

A parameter that trains is in float32, with a gradient and two moments. With LoRA the student's own
are frozen, in bf16 on GPUs, and the adapter trains: rank × (in + out) for each adapted layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from rilbench.config.lora_targets import discriminator_layers, layers_to_adapt
from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture, Tower

WEIGHT, GRADIENT, MOMENTS = 4, 4, 8
"""Bytes for one trained parameter, in float32."""


@dataclass(frozen=True)
class States:
    """Bytes of one trained model."""

    weights: float
    gradients: float
    moments: float

    @property
    def total(self) -> float:
        """Bytes of all three."""
        return self.weights + self.gradients + self.moments

    @property
    def waiting(self) -> float:
        """Bytes while it does not train."""
        return self.weights + self.moments


def compute_bytes(recipe: Recipe) -> int:
    """Return the bytes of a number in a forward, and of a frozen weight."""
    return 4 if recipe.hardware.device == "cpu" else 2


def policy_states(recipe: Recipe, student: Architecture) -> States:
    """Return the policy's.

    Raises:
        UserError: ``policy.lora_targets`` name no layer of the student.
    """
    adapter = policy_adapter(recipe, student)
    if not adapter:
        return _states(recipe, 0, student.parameters)
    return _states(recipe, student.parameters, adapter)


def discriminator_states(recipe: Recipe, student: Architecture) -> States:
    """Return the discriminator's, whose head is new and always trains; nothing without one."""
    if not recipe.method_spec.uses_discriminator:
        return States(0.0, 0.0, 0.0)
    adapter = discriminator_adapter(recipe, student)
    if not adapter:
        return _states(recipe, 0, student.discriminator)
    return _states(recipe, student.decoder, adapter + student.discriminator - student.decoder)


def _states(recipe: Recipe, frozen: int, trained: int) -> States:
    weights = compute_bytes(recipe) * frozen + WEIGHT * trained
    return States(float(weights), float(GRADIENT * trained), float(MOMENTS * trained))


def policy_adapter(recipe: Recipe, student: Architecture) -> int:
    """Return the parameters of the policy's adapter; 0 without one.

    Raises:
        UserError: ``policy.lora_targets`` name no layer of the student.
    """
    if not recipe.policy.lora_rank:
        return 0
    layers = linear_layers(student)
    chosen = layers_to_adapt(layers, recipe.policy.lora_targets)
    return recipe.policy.lora_rank * sum(sum(layers[name]) for name in chosen)


def discriminator_adapter(recipe: Recipe, student: Architecture) -> int:
    """Return the parameters of the discriminator's adapter, without the head; 0 without one.

    Raises:
        UserError: ``policy.lora_targets`` name no layer of the decoder.
    """
    if not recipe.discriminator_lora_rank:
        return 0
    layers = {
        name: size for name, size in linear_layers(student).items() if "language_model" in name
    }
    chosen = discriminator_layers(layers, recipe.policy.lora_targets)
    return recipe.discriminator_lora_rank * sum(sum(layers[name]) for name in chosen)


def linear_layers(student: Architecture) -> dict[str, tuple[int, int]]:
    """Return the inputs and outputs of a student's linear layers by name, without the head."""
    if student.linear:
        return dict(student.linear)
    h, i, kv = student.text.hidden, student.text.intermediate, student.kv_width
    block = {"q_proj": (h, h), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (h, h)}
    one = {f"self_attn.{name}": size for name, size in block.items()}
    one |= {"mlp.gate_proj": (h, i), "mlp.up_proj": (h, i), "mlp.down_proj": (i, h)}
    found = _repeated("model.language_model.layers", student.text.layers, one)
    tower = student.vision
    if tower is None:
        return found
    read = _qwen_vision if tower.gated else _intern_vision
    return found | read(tower, tower.hidden * student.patches_per_token, h)


def _repeated(
    prefix: str, layers: int, one: dict[str, tuple[int, int]]
) -> dict[str, tuple[int, int]]:
    return {f"{prefix}.{n}.{name}": size for n in range(layers) for name, size in one.items()}


def _qwen_vision(tower: Tower, wide: int, out: int) -> dict[str, tuple[int, int]]:
    h, i = tower.hidden, tower.intermediate
    one = {"attn.qkv": (h, 3 * h), "attn.proj": (h, h)}
    one |= {"mlp.gate_proj": (h, i), "mlp.up_proj": (h, i), "mlp.down_proj": (i, h)}
    merger = {"model.visual.merger.mlp.0": (wide, wide), "model.visual.merger.mlp.2": (wide, out)}
    return _repeated("model.visual.blocks", tower.layers, one) | merger


def _intern_vision(tower: Tower, wide: int, out: int) -> dict[str, tuple[int, int]]:
    h, i = tower.hidden, tower.intermediate
    names = ("q_proj", "k_proj", "v_proj", "projection_layer")
    one = {f"attention.{name}": (h, h) for name in names}
    one |= {"mlp.fc1": (h, i), "mlp.fc2": (i, h)}
    projector = "model.multi_modal_projector"
    around = {f"{projector}.linear_1": (wide, out), f"{projector}.linear_2": (out, out)}
    return _repeated("model.vision_tower.encoder.layer", tower.layers, one) | around
