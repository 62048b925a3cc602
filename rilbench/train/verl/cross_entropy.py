"""flash-attn's cross-entropy in plain torch: the log-probabilities of large vocabularies."""

from __future__ import annotations

from typing import Any

import torch

_FLOATS = 1 << 26
"""Logits taken at once: 256 MiB in float32, 441 tokens of Qwen's 152,000."""


class _CrossEntropy(torch.autograd.Function):
    """-log softmax(logits)[label] in float32, without keeping a copy of the logits.

    Kept for the backward are the logits themselves and one number a token; all else is made in
    pieces, again in the backward, where it may take the logits' place.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, inplace_backward: bool
    ) -> torch.Tensor:
        losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        normaliser = torch.empty_like(losses)
        for part in _parts(logits):
            scores = logits[part].float()
            normaliser[part] = scores.logsumexp(-1)
            losses[part] = normaliser[part] - scores.gather(-1, labels[part, None])[:, 0]
        ctx.save_for_backward(logits, labels, normaliser)
        ctx.inplace_backward = inplace_backward
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, labels, normaliser = ctx.saved_tensors
        (grad,) = grads
        out = logits if ctx.inplace_backward else torch.empty_like(logits)
        for part in _parts(logits):
            wrong = torch.sub(logits[part], normaliser[part, None]).exp_()  # in float32
            wrong.scatter_add_(-1, labels[part, None], wrong.new_full((len(wrong), 1), -1.0))
            out[part] = wrong.mul_(grad[part, None])
        return out, None, None


def _parts(logits: torch.Tensor) -> list[slice]:
    rows = max(1, _FLOATS // logits.shape[-1])
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def cross_entropy_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, inplace_backward: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """As flash-attn's: each token's loss in float32.

    Args:
        logits: (N, V).
        labels: (N,) int64.
        inplace_backward: the gradient may overwrite the logits.

    Returns:
        The losses (N,), and flash-attn's second loss (N,), which nothing here asks for: zeros.
    """
    losses: torch.Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits, labels, inplace_backward
    )
    return losses, torch.zeros_like(losses)
