"""What a response earns beyond its group: A_i of Equation 2, and GRPO's variant.

A group is all the outputs of one question: G of the student and G of its teachers.
"""

from collections.abc import Callable

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


def judged_advantages(
    similarity: Tensor,
    answer: Tensor,
    group: Tensor,
    own: Tensor,
    estimate: Callable[[Tensor, Tensor], Tensor] = dr_grpo_advantages,
) -> Tensor:
    """Return the advantages where the judge gave no verdict on some rows.

    A row without a verdict has no reward, so its advantage is 0, and the mean of its group is over
    the judged rows. A group with fewer than two judged rows, or with none of a side (student,
    teachers) that it has, contributes nothing: there would be nothing to compare with, or one side
    alone. The loss still divides by all 2G rows, so that a group with less to say weighs less.

    Args:
        similarity: (N,) float, finite.
        answer: (N,) float of 0 and 1; NaN where the verdict is missing.
        group: (N,) int64, as for :func:`dr_grpo_advantages`.
        own: (N,) bool: sampled by the student.
        estimate: :func:`dr_grpo_advantages` or :func:`grpo_advantages`.

    Returns:
        (N,) of the type of ``answer``, without gradient; without missing verdicts what ``estimate``
        returns for similarity + answer.

    Raises:
        ValueError: shapes or types do not fit, or a number other than a missing verdict is NaN.
    """
    if not similarity.shape == answer.shape == group.shape == own.shape:
        raise ValueError("give one similarity, answer, group and side for every response")
    judged = ~answer.isnan()
    _, inverse = torch.unique(group, return_inverse=True)
    groups = int(inverse.max()) + 1 if len(inverse) else 0

    def count(rows: Tensor) -> Tensor:
        zeros = torch.zeros(groups, dtype=torch.int64, device=group.device)
        return zeros.index_add_(0, inverse, rows.to(torch.int64))

    sound = count(judged) >= 2
    for side in (own, ~own):
        sound &= (count(judged & side) > 0) | (count(side) == 0)
    # A group of one row has an advantage of 0 in any case; whole groups keep it.
    sound |= count(~judged) == 0
    used = judged & sound[inverse]
    advantages = torch.zeros_like(answer)
    advantages[used] = estimate((similarity + answer)[used], group[used]).to(answer.dtype)
    return advantages


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
