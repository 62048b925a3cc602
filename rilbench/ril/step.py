"""The middle of a RIL step (Algorithm 2): from logits and verdicts to what the policy learns from.

Before it, the responses were sampled and judged and the discriminator was updated (Equation 1).
After it, the policy is updated with ``learned_advantage`` (Equation 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rilbench.ril.advantage import dr_grpo_advantages, grpo_advantages, judged_advantages
from rilbench.ril.methods import Method
from rilbench.ril.rewards import (
    continuous_similarity,
    discriminator_score,
    similarity_reward,
)


@dataclass(frozen=True)
class StepSignal:
    """One value for each response of a step, (N,) float32, without gradient."""

    similarity_reward: Tensor
    """1[D < 0.5], or 1 - D, or GAD's score. Without D: 0, or 1 for a teacher's by a bonus."""
    answer_reward: Tensor
    """The judge's verdict; NaN where it gave none; 0 if the method has no answer reward."""
    reward: Tensor
    """R: the sum of all rewards; NaN where the verdict is missing."""
    advantage: Tensor
    """A: the reward minus the mean of the response's group."""
    learned_advantage: Tensor
    """The advantage in the policy loss: 0 for teacher responses that are left out of it."""


def score_step(
    logits: Tensor | None,
    answer_reward: Tensor,
    group: Tensor,
    is_student: Tensor,
    method: Method,
    *,
    similarity: Literal["binary", "continuous"] = "binary",
    extra_rewards: Mapping[str, Tensor] | None = None,
    teachers_in_loss: bool = True,
) -> StepSignal:
    """Return rewards and advantages of all N responses of a step.

    Args:
        logits: (N,) of the discriminator just updated; None if the method has none.
        answer_reward: (N,) float, 1 right and 0 wrong; NaN where the judge gave no verdict.
        group: (N,) int64, the same number for the responses to one question.
        is_student: (N,) bool, True for sampled responses and False for teachers'.
        method: which of the rewards count, and how advantages are scaled.
        similarity: how the discriminator's output becomes a reward (Fig. 6 compares both).
        extra_rewards: registered rewards by name, each (N,) and finite; they are added.
        teachers_in_loss: whether the policy learns from teacher responses. They always count in
            the mean of their group.

    Raises:
        ValueError: shapes or types do not fit, or the method needs logits and there are none.
    """
    zeros = torch.zeros_like(answer_reward)

    # R(q, o) = 1[D(q, o) < 0.5] + judge(q, a, o), and whatever the user added.
    similarity_part = zeros
    if method.uses_discriminator:
        if logits is None:
            raise ValueError("this method rewards similarity; give the discriminator's logits")
        if method.pairs_with_teachers:
            similarity_part = discriminator_score(logits)
        elif similarity == "binary":
            similarity_part = similarity_reward(logits)
        else:
            similarity_part = continuous_similarity(logits)
    elif method.uses_teacher_bonus:
        similarity_part = zeros.masked_fill(~is_student, 1.0)
    answer_part = answer_reward if method.uses_answer_reward else zeros
    always_known = similarity_part + sum((extra_rewards or {}).values(), start=zeros)
    reward = always_known + answer_part

    # A_i = R_i - mean of R over the 2G responses of the question.
    if bool(always_known.isfinite().all()):
        estimate = grpo_advantages if method.normalize_std else dr_grpo_advantages
        advantage = judged_advantages(always_known, answer_part, group, is_student, estimate)
    else:  # a broken discriminator: NaN for all, so that the trainer's NaN guard stops the run
        advantage = torch.full_like(zeros, torch.nan)

    learned = advantage if teachers_in_loss else advantage.where(is_student, 0.0)
    return StepSignal(similarity_part, answer_part, reward, advantage, learned)
