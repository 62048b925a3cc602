"""What a response earns beyond its group: A_i of Equation 2, and GRPO's variant.

A group is all the outputs of one question: G of the student and G of its teachers.
"""

import torch
from torch import Tensor


def dr_grpo_advantages(rewards: Tensor, group: Tensor) -> Tensor:
    """Return A_i = R_i - mean of R over the 2G outputs of i's question (Equation 2, Dr.GRPO).

    Args:
        rewards: (N,) float, finite.
        group: (N,) int64, the same number for the outputs of one question; any numbers, any order.

    Returns:
        (N,) of the type of ``rewards``, without gradient. Each group sums to 0; a group of one row,
        or of equal rewards, is exactly 0.

    Raises:
        ValueError: shapes or types do not fit, or a reward is missing (NaN) or infinite.
    """
    centred, _, _ = _centred(rewards, group)
    return centred.to(rewards.dtype)


def grpo_advantages(rewards: Tensor, group: Tensor, eps: float = 1e-6) -> Tensor:
    """Return (R_i - mean) / (std + eps) within each group: the GRPO baseline.

    The standard deviation is the unbiased one (n - 1), as GRPO implementations compute it.

    Args:
        rewards: (N,) float, finite.
        group: (N,) int64, as for :func:`dr_grpo_advantages`.
        eps: added to the standard deviation.

    Returns:
        (N,) of the type of ``rewards``, without gradient; a group of one row, or of equal rewards,
        is exactly 0.

    Raises:
        ValueError: as for :func:`dr_grpo_advantages`.
    """
    centred, inverse, count = _centred(rewards, group)
    squares = torch.zeros_like(count).index_add_(0, inverse, centred.square())
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    return (centred / (std[inverse] + eps)).to(rewards.dtype)


def _centred(rewards: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rewards minus their group's mean (N,), each row's group (N,), group sizes (K,).

    In float64, where the mean of equal float32 rewards is exact: rounding never becomes an
    advantage, which GRPO's division would then blow up.
    """
    if rewards.ndim != 1 or rewards.shape != group.shape or not rewards.is_floating_point():
        raise ValueError(
            f"rewards {tuple(rewards.shape)} {rewards.dtype} and group {tuple(group.shape)} do not "
            "fit; give one float reward and one group number for every response"
        )
    if not bool(rewards.isfinite().all()):
        raise ValueError("a reward is missing or infinite; leave that response out of its group")
    values = rewards.detach().to(torch.float64)
    _, inverse, count = torch.unique(group, return_inverse=True, return_counts=True)
    size = count.to(torch.float64)
    mean = torch.zeros_like(size).index_add_(0, inverse, values) / size
    return values - mean[inverse], inverse, size
