"""Equation 2: the clipped surrogate over all responses, and the KL to the reference.

What the paper leaves open is read like this: ratios are per token; the KL is the k3 estimator over
all responses, teachers' too, averaged as the surrogate is; Dr.GRPO's constant length is
``length_scale``.
"""

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from rilbench.ril.methods import Aggregation

# Log-ratios are cut here, far outside of what an update that works produces: exp(20) is 5e8, and
# exp(89) is infinite in float32. A token beyond the cut has a finite value and no gradient.
LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True)
class PolicyLoss:
    """One micro-batch's part of Equation 2, all scalars; only ``loss`` has a gradient.

    Micro-batches add up field by field; of ``ratio_max`` take the largest.
    """

    loss: Tensor
    """To minimise: ``kl_coef * kl - surrogate``."""
    surrogate: Tensor
    """Share of the mean clipped surrogate over all ``num_responses``."""
    kl: Tensor
    """Share of the mean KL over all ``num_responses``, in nats; 0 without a reference."""
    tokens: Tensor
    """Response tokens counted."""
    ratio_sum: Tensor
    """Sum of the tokens' ratios."""
    ratio_max: Tensor
    """Largest ratio of a token; 0 without tokens."""
    clipped: Tensor
    """Tokens whose surrogate the clip lowered."""


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantages: Tensor, eps: float
) -> Tensor:
    """Return min(r A, clip(r, 1 - eps, 1 + eps) A) for each token, r = exp(log_prob - old).

    For student and teacher responses alike, as in Equation 2: ``old_log_prob`` of a teacher's
    response is the student's own, before the update.

    Args:
        log_prob: (B, T) of the policy, with gradient.
        old_log_prob: (B, T) of the policy that sampled, without gradient.
        advantages: (B, 1) one for each response, or (B, T) one for each token.
        eps: half width of the clip.

    Returns:
        (B, T), to maximise.
    """
    ratio = _ratio(log_prob, old_log_prob)
    return torch.minimum(ratio * advantages, ratio.clamp(1 - eps, 1 + eps) * advantages)


def kl_k3(log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
    """Return the k3 estimate of KL(policy || reference) for each token, in nats, at least 0.

    exp(ref - log_prob) - (ref - log_prob) - 1, the KL of Equation 2. ``expm1`` keeps it exact where
    the two hardly differ.

    Args:
        log_prob: (B, T) of the policy, with gradient.
        ref_log_prob: (B, T) of the reference, without gradient.

    Returns:
        (B, T), to minimise.
    """
    difference = (ref_log_prob - log_prob).clamp(max=LOG_RATIO_LIMIT)
    return torch.expm1(difference) - difference


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor | None,
    ref_log_prob: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_eps: float,
    kl_coef: float,
    length_scale: float,
    num_responses: int,
    aggregation: Aggregation = "token-sum",
) -> PolicyLoss:
    """Return Equation 2 negated for one micro-batch; micro-batches add up to the whole batch.

    ``token-sum`` (Dr.GRPO): sum over tokens / (length_scale * num_responses). ``sequence-mean``
    (GRPO): mean over each response's own tokens / num_responses. A trainer that averages gradients
    over data-parallel ranks multiplies ``loss`` by their number.

    Args:
        log_prob: (B, T) of the policy, with gradient.
        old_log_prob: (B, T) of the policy that sampled; None for ``log_prob`` itself (mu = 1).
        ref_log_prob: (B, T) of the reference; None when ``kl_coef`` is 0.
        advantages: (B,) one for each response; or (B, T), as in distillation.
        mask: (B, T) non-zero at response tokens; other positions are ignored, even NaN.
        clip_eps: half width of the clip of the ratio.
        kl_coef: weight of the KL.
        length_scale: tokens, such as the longest response allowed; for ``token-sum`` only.
        num_responses: responses in the whole batch, 2G for each question.
        aggregation: how tokens become one number.

    Returns:
        The micro-batch's part; a response without tokens adds 0.

    Raises:
        ValueError: shapes or settings do not fit together.
    """
    old, ref = (log_prob if x is None else x for x in (old_log_prob, ref_log_prob))
    _check_shapes(advantages, mask, log_prob, old, ref)
    _check_settings(
        aggregation, num_responses, length_scale, kl_coef if ref_log_prob is None else 0.0
    )
    keep = mask != 0
    log_prob, old, ref = (_kept(x, keep) for x in (log_prob, old.detach(), ref.detach()))
    advantages = advantages.detach().to(log_prob.dtype)
    advantages = advantages.unsqueeze(-1) if advantages.ndim == 1 else _kept(advantages, keep)
    divisor = length_scale if aggregation == "token-sum" else keep.sum(-1).clamp(min=1)
    per_token = clipped_surrogate(log_prob, old, advantages, clip_eps)
    surrogate = (_kept(per_token, keep).sum(-1) / divisor).sum() / num_responses
    kl = (_kept(kl_k3(log_prob, ref), keep).sum(-1) / divisor).sum() / num_responses
    ratio = _kept(_ratio(log_prob.detach(), old), keep)
    clipped = per_token.detach() < ratio * advantages
    return PolicyLoss(
        loss=kl_coef * kl - surrogate,
        surrogate=surrogate.detach(),
        kl=kl.detach(),
        tokens=keep.sum(),
        ratio_sum=ratio.sum(),
        ratio_max=torch.cat([ratio.flatten(), ratio.new_zeros(1)]).max(),
        clipped=(clipped & keep).sum(),
    )


def _ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """Return r = exp(log_prob - old_log_prob), cut where exp would overflow."""
    return (log_prob - old_log_prob).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def _kept(values: Tensor, keep: Tensor) -> Tensor:
    """Return values in at least float32, and 0 in place of padding.

    Not a product with the mask, as NaN times 0 is NaN, forwards and backwards.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32)).where(keep, 0.0)


def _check_shapes(advantages: Tensor, mask: Tensor, *tokens: Tensor) -> None:
    fits = mask.ndim == 2 and advantages.shape in (mask.shape[:1], mask.shape)
    if not fits or any(each.shape != mask.shape for each in tokens):
        shapes = ", ".join(str(tuple(each.shape)) for each in tokens)
        raise ValueError(
            f"log-probabilities {shapes}, mask {tuple(mask.shape)} and advantages "
            f"{tuple(advantages.shape)} do not fit; give (B, T), (B, T) and (B,) or (B, T)"
        )


def _check_settings(
    aggregation: str, num_responses: int, length_scale: float, bare_kl_coef: float
) -> None:
    """Check the settings; ``bare_kl_coef`` is the weight of a KL without a reference."""
    if bare_kl_coef:
        raise ValueError(
            f"kl_coef is {bare_kl_coef} without a reference; give ref_log_prob or kl_coef 0"
        )
    if aggregation not in get_args(Aggregation):
        raise ValueError(f"aggregation is {aggregation!r}; use one of {get_args(Aggregation)}")
    if not (num_responses > 0 and length_scale > 0):
        raise ValueError(
            f"num_responses is {num_responses}, length_scale {length_scale}; both must be above 0"
        )
