"""The part of flash-attn that verl uses, over torch's own attention, where it is not installed.

The package flash-attn has no wheel for the pinned torch and must be compiled with nvcc, but verl's
packed path (rows one after another, without padding) and transformers' ``flash_attention_2`` import
it. `install` puts this module in its place for one process that trains; a process of vLLM must not
have it, because vLLM asks whether there is a ``flash_attn`` and then wants more of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import torch

# verl's own, for installations without flash-attn; transformers imports them by this name.
from verl.utils.attention_utils import (
    _fallback_index_first_axis as index_first_axis,
)
from verl.utils.attention_utils import _fallback_pad_input as pad_input
from verl.utils.attention_utils import _fallback_rearrange as rearrange
from verl.utils.attention_utils import _fallback_unpad_input as unpad_input

from rilbench.devices import flash_attention_version
from rilbench.model.varlen import flash_attn_varlen_func
from rilbench.train.verl.cross_entropy import cross_entropy_loss

__all__ = [
    "cross_entropy_loss",
    "flash_attn_func",
    "flash_attn_varlen_func",
    "flash_attn_with_kvcache",
    "index_first_axis",
    "install",
    "pad_input",
    "rearrange",
    "unpad_input",
]

__version__ = "2.8.3"
"""The version of flash-attn whose interface this is; transformers asks for at least 2.3.3."""

_NAMES = ("flash_attn", "flash_attn.bert_padding", "flash_attn.ops.triton.cross_entropy")


def install() -> None:
    """Let verl and transformers find this module as ``flash_attn`` in this process.

    Does nothing where flash-attn itself is installed. verl's cross-entropy is replaced on every
    device: its fallback loops in Python over tokens.
    """
    own = sys.modules[__name__]
    if flash_attention_version() is not None or sys.modules.get("flash_attn") is own:
        return
    from transformers.utils import import_utils
    from verl.utils import torch_functional

    sys.modules.update(dict.fromkeys(_NAMES, own))
    # transformers believes an import only with a distribution of the right name behind it.
    import_utils.PACKAGE_DISTRIBUTION_MAPPING["flash_attn"] = ["flash-attn"]
    import_utils.is_flash_attn_2_available.cache_clear()
    import_utils.is_flash_attn_greater_or_equal.cache_clear()
    import_utils.is_flash_attn_greater_or_equal_2_10.cache_clear()
    # What asked before this must ask again.
    torch_functional.cross_entropy_loss = cross_entropy_loss
    torch_functional.FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE = True
    asked = sys.modules.get("verl.models.transformers.qwen2_vl")
    if asked is not None and import_utils.is_flash_attn_2_available():
        importlib.reload(asked)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Attention of a batch: (B, T_q, H, D) over (B, T_k, H_k, D); see `flash_attn_varlen_func`."""
    rows, queries, keys = len(q), q.shape[1], k.shape[1]
    starts = torch.arange(rows + 1, dtype=torch.int32, device=q.device)
    attended = flash_attn_varlen_func(
        q.flatten(0, 1),
        k.flatten(0, 1),
        v.flatten(0, 1),
        starts * queries,
        starts * keys,
        queries,
        keys,
        dropout_p,
        softmax_scale,
        causal,
        window_size,
    )
    return attended.view(rows, queries, *attended.shape[1:])


def flash_attn_with_kvcache(*_: Any, **__: Any) -> Sequence[torch.Tensor]:
    """transformers imports it, for its own generation; rollouts are vLLM's."""
    raise NotImplementedError("generation over a cache needs the package flash-attn")
