"""What a response earns beyond its group: A_i of Equation 2, and GRPO's variant.

A group is all the responses to one question: G of the student and G of its teachers.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def dr_grpo_advantages(rewards: Tensor, group: Tensor) -> Tensor:
    """Return A_i = R_i - mean of R over the 2G responses to i's question (Equation 2, Dr.GRPO).

    Args:
        rewards: (N,) float, finite.
        group: (N,) int64, the same number for the responses to one question; any order.

    Returns:
        (N,) of the type of ``rewards``, without gradient. Each group sums to 0; a group of one,
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
        (N,) of the type of ``rewards``, without gradient; a group of one, or of equal rewards,
        is exactly 0.

    Raises:
        ValueError: as for :func:`dr_grpo_advantages`.
    """
    centred, inverse, count = _centred(rewards, group)
    squares = torch.zeros_like(count).index_add_(0, inverse, centred.square())
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    return (centred / (std[inverse] + eps)).to(rewards.dtype)


def judged_advantages(
    known_reward: Tensor,
    answer_reward: Tensor,
    group: Tensor,
    is_student: Tensor,
    estimate: Callable[[Tensor, Tensor], Tensor] = dr_grpo_advantages,
) -> Tensor:
    """Return the advantages where the judge may have given no verdict on some responses.

    A response without a verdict has no reward: its advantage is 0, and the mean of its group is
    over the judged responses. A group contributes nothing if fewer than two of its responses are
    judged, or none of the student's or none of the teachers': there would be nothing to compare
    with. The loss still divides by all 2G responses, so such a group weighs less.

    Args:
        known_reward: (N,) float, finite: the similarity reward and all others but the answer's.
        answer_reward: (N,) float of 0 and 1; NaN where the verdict is missing.
        group: (N,) int64, as for :func:`dr_grpo_advantages`.
        is_student: (N,) bool, True for sampled responses.
        estimate: :func:`dr_grpo_advantages` or :func:`grpo_advantages`.

    Returns:
        (N,) of the type of ``answer_reward``, without gradient. Without missing verdicts it is what
        ``estimate`` returns for known_reward + answer_reward.

    Raises:
        ValueError: shapes or types do not fit, or a number other than a missing verdict is NaN.
    """
    if not known_reward.shape == answer_reward.shape == group.shape == is_student.shape:
        raise ValueError("give one reward, verdict, group and is_student for every response")
    judged = ~answer_reward.isnan()
    _, inverse = torch.unique(group, return_inverse=True)
    groups = int(inverse.max()) + 1 if len(inverse) else 0

    def count(chosen: Tensor) -> Tensor:
        zeros = torch.zeros(groups, dtype=torch.int64, device=group.device)
        return zeros.index_add_(0, inverse, chosen.to(torch.int64))

    sound = count(judged) >= 2
    for side in (is_student, ~is_student):
        sound &= (count(judged & side) > 0) | (count(side) == 0)
    # Where no verdict is missing, every group counts; a group of one has an advantage of 0 anyway.
    sound |= count(~judged) == 0
    used = judged & sound[inverse]
    advantages = torch.zeros_like(answer_reward)
    rewards = (known_reward + answer_reward)[used]
    advantages[used] = estimate(rewards, group[used]).to(answer_reward.dtype)
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
