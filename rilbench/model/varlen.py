"""Attention within sequences that stand one after another, by the interface of flash-attn.

On a GPU the kernels are those of ``torch.nn.attention.varlen``: FlashAttention 2, built into torch.
Elsewhere each sequence goes through ``scaled_dot_product_attention``, which is exact and slow.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

_WIDEST_HEAD = 256  # of the kernels, which also want a multiple of 8


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int | torch.Tensor,
    max_seqlen_k: int | torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    """Attention within each of N sequences that stand one after another.

    Args:
        q: (T_q, H, D); ``k`` and ``v``: (T_k, H_k, D), where H_k divides H.
        cu_seqlens_q: (N + 1,) int32, where each sequence begins, and T_q; likewise for the keys.
        max_seqlen_q: the longest sequence; likewise for the keys.
        dropout_p: 0; the students have no dropout.
        softmax_scale: what scores are multiplied by; 1/√D by default.
        causal: the last query of a sequence sees the last key, the one before it one less, ….
        window_size: how many keys to the left and right a query sees; -1 for all.

    Returns:
        (T_q, H, D).

    Raises:
        NotImplementedError: dropout was asked for.
    """
    if dropout_p:
        raise NotImplementedError("attention with dropout needs the package flash-attn")
    window = (window_size[0], 0) if causal else window_size
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    if not _has_kernel(q):
        lengths_q, lengths_k = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
        sequences = zip(
            torch.split(q, lengths_q),
            torch.split(k, lengths_k),
            torch.split(v, lengths_k),
            strict=True,
        )
        return torch.cat([_one_sequence(*each, softmax_scale, window) for each in sequences])
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        cu_seqlens_q.to(torch.int32),
        cu_seqlens_k.to(torch.int32),
        int(max_seqlen_q),
        int(max_seqlen_k),
        scale=softmax_scale,
        window_size=window,
    )
    assert isinstance(attended, torch.Tensor)  # no auxiliary output was asked for
    return attended


def _has_kernel(q: torch.Tensor) -> bool:
    half = q.dtype in (torch.float16, torch.bfloat16)
    return q.is_cuda and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= _WIDEST_HEAD


def _one_sequence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    window: tuple[int, int],
) -> torch.Tensor:
    """Attention of one sequence, (T_q, H, D) over (T_k, H, D)."""
    is_causal = window == (-1, 0) and len(q) == len(k)
    mask = None
    if window != (-1, -1) and not is_causal:
        place = torch.arange(len(q), device=q.device) + len(k) - len(q)
        ahead = torch.arange(len(k), device=q.device) - place[:, None]
        left, right = (len(k) + len(q) if side < 0 else side for side in window)
        mask = (ahead >= -left) & (ahead <= right)
    query, key, value = (x.transpose(0, 1)[None] for x in (q, k, v))
    attended = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale
    )
    return attended[0].transpose(0, 1)
