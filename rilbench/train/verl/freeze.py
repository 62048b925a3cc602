"""A part of the language model that keeps its weights (Table 5c)."""

from __future__ import annotations

import re

import torch

from rilbench.errors import UserError

_LAYER = r"language_model\.layers\.\d+\."
_NAMES = {
    "embedding": r"language_model\.embed_tokens\.",
    "attention": rf"{_LAYER}self_attn\.",
    "gate": rf"{_LAYER}mlp\.gate_proj\.",
    "up": rf"{_LAYER}mlp\.up_proj\.",
    "down": rf"{_LAYER}mlp\.down_proj\.",
    "norm": rf"({_LAYER}(input|post_attention)_layernorm|language_model\.norm)\.",
    "head": r"lm_head\.",
}
"""By `rilbench.config.schema.PARTS`; the names of Qwen's decoder, which InternVL3 has too."""


def freeze(model: torch.nn.Module, part: str) -> int:
    """Take the gradient from a part's weights; call it before the first forward.

    Args:
        model: the whole student, also when FSDP2 has sharded it.
        part: one of `rilbench.config.schema.PARTS`.

    Returns:
        How many tensors keep their values.

    Raises:
        UserError: the student has none of its own, as where the head is the embedding.
    """
    pattern = re.compile(rf"(^|\.){_NAMES[part]}")
    found = [p for name, p in model.named_parameters() if pattern.search(name)]
    if not found:
        raise UserError(
            f"policy.freeze={part}: this student has no {part} of its own (with tied weights the "
            "head is the embedding); leave it out"
        )
    for parameter in found:
        parameter.requires_grad_(False)
    return len(found)
