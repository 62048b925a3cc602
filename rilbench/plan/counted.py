"""The architecture of a layout without formulas of its own, counted on transformers' classes.

`rilbench.plan.architecture` has formulas for the paper's layouts, and needs no torch for them. Any
other layout of students is built from its ``config.json`` on torch's meta device, without memory,
and its parameters are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rilbench.config.layouts import why_unshared
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.plan.architecture import Architecture, Tower


def _merged(config: Any) -> int:
    merged: int = config.vision_config.spatial_merge_size**2
    return merged


PATCHES: Mapping[str, Callable[[Any], int]] = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "glm46v"), _merged),
    "internvl": lambda config: round(1 / config.downsample_ratio) ** 2,
    "gemma3": lambda config: (
        (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        // config.mm_tokens_per_image
    ),
    "gemma4": lambda config: config.vision_config.pooling_kernel_size**2,
    "llava_onevision": lambda _: 1,
    "smolvlm": lambda config: config.scale_factor**2,
}
"""Patches of the vision tower for one token of the text model, by ``model_type``."""

EXPERTS = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe")
"""Layouts of which a token uses a part of the parameters."""


def count(config: Mapping[str, Any], name: str) -> Architecture:
    """The architecture of a ``config.json`` whose ``model_type`` is one of `PATCHES`.

    Raises:
        UserError: torch or transformers is missing, or the config is not one of a model.
    """
    from rilbench.plan.architecture import Architecture, Tower

    found, model = _built(config, name)
    text = found.get_text_config()
    decoder, layers = model.get_decoder(), text.num_hidden_layers
    embedding = text.vocab_size * text.hidden_size
    tied = bool(found.tie_word_embeddings)
    layer = _size(decoder.layers) // layers
    vision = found.vision_config
    patch = vision.patch_size
    down, across = patch if isinstance(patch, (list, tuple)) else (patch, patch)
    frames = getattr(vision, "temporal_patch_size", 1)
    return Architecture(
        name=name,
        layout=found.model_type,
        text=Tower(
            layers,
            text.hidden_size,
            text.intermediate_size,
            text.num_attention_heads,
            layer,
            gated=True,
        ),
        kv_heads=text.num_key_value_heads or text.num_attention_heads,
        vocabulary=text.vocab_size,
        tied=tied,
        vision=_tower(model, vision),
        vision_parameters=_size(model) - _size(decoder) - (0 if tied else embedding),
        patches_per_token=PATCHES[found.model_type](found),
        patch_pixels=down * across,
        patch_values=down * across * 3 * frames,
        head_width=getattr(text, "head_dim", None) or 0,
        beside_layers=_size(decoder) - embedding - layers * layer - text.hidden_size,
        unshared=why_unshared(found),
        linear=_linear(model),
    )


def _built(config: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    """transformers' config, and its model without weights."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText
    except ImportError as error:
        raise UserError(
            f"{name} is a {config['model_type']}, which rilbench plan counts by transformers' "
            "classes: uv pip install 'rilbench[train]'"
        ) from error
    fields = {key: value for key, value in config.items() if key != "model_type"}
    try:
        found = AutoConfig.for_model(config["model_type"], **fields)
        with torch.device("meta"):
            return found, AutoModelForImageTextToText.from_config(found)
    except Exception as error:  # what transformers and its strict configs raise is anything
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"the config.json of {name} makes no model ({said}); take the whole file"
        ) from error


def _linear(model: Any) -> tuple[tuple[str, tuple[int, int]], ...]:
    """The linear layers but the head, as LoRA may adapt them."""
    from torch import nn

    head = model.get_output_embeddings()
    return tuple(
        (name, (module.in_features, module.out_features))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    )


def _size(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tower(model: Any, vision: Any) -> Tower:
    """The stack of layers of the vision tower."""
    from rilbench.plan.architecture import Tower

    layers = getattr(vision, "depth", None) or vision.num_hidden_layers
    hidden = getattr(vision, "embed_dim", None) or vision.hidden_size
    wide = getattr(vision, "intermediate_size", None) or int(hidden * vision.mlp_ratio)
    heads = getattr(vision, "num_heads", None) or vision.num_attention_heads
    text = model.get_decoder()
    stack = next(
        module
        for name, module in model.named_modules()
        if type(module).__name__ == "ModuleList" and len(module) == layers
        if module is not text.layers and not name.startswith("lm_head")
    )
    gated = any(name.endswith("gate_proj") for name, _ in stack.named_modules())
    return Tower(layers, hidden, wide, heads, _size(stack) // layers, gated)
