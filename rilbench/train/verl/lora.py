"""LoRA: a low-rank adapter on linear layers of a student that keeps its weights (peft's layers).

A layer's weight W (out, in) becomes W + alpha / rank · B A, with A (rank, in) and B (out, rank). B
starts at 0, so that at first the adapted model is the model. In an adapted model the name of W ends
in ``base_layer.weight``, and those of A and B in ``lora_A.default.weight`` and
``lora_B.default.weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

PREFIX = "base_model.model."
"""What peft puts before a model's own names."""
_A, _B = ".lora_A.default.weight", ".lora_B.default.weight"


def linear_layers(model: nn.Module, head: nn.Module | None) -> list[str]:
    """Names of a model's linear layers without its head."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]


def adapt(model: Any, layers: Sequence[str], *, rank: int, alpha: int, seed: int) -> PeftModel:
    """Freeze a model and put an adapter on some of its layers.

    Args:
        model: changed in place.
        layers: names of linear layers.
        rank: of A and B.
        alpha: the scale is alpha / rank.
        seed: of A; B is 0.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(layers), bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, config)
    return adapted


def is_adapter(name: str) -> bool:
    """Whether a weight of an adapted model is its adapter's."""
    return name.endswith((_A, _B))


def base_name(name: str) -> str:
    """The name that a weight of an adapted model had before."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")


def adapters_of(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The names of A and B by that of the weight that they are added to."""
    layers = [name.removesuffix(_A) for name in names if name.endswith(_A)]
    return {f"{base_name(layer)}.weight": (layer + _A, layer + _B) for layer in layers}


def merge(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale · B A, computed in float32, in the dtype of W (out, in)."""
    return torch.addmm(weight.float(), b.float(), a.float(), alpha=scale).to(weight.dtype)
