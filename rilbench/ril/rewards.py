"""What a response earns: R(q, o) = 1[D(q, o) < 0.5] + judge(q, a, o), so R is 0, 1 or 2.

Or, with the continuous similarity that the paper compares with (Fig. 6), 1 - D + judge.
"""

import torch
from torch import Tensor


def similarity_reward(logits: Tensor) -> Tensor:
    """Return 1[D < 0.5] with D = sigmoid(logits): 1 where the discriminator sees a teacher.

    The comparison is strict, so D of exactly 0.5 (logit 0) earns 0. It is made on the logit, where
    sigmoid's rounding cannot turn a D just below 0.5 into 0.5.

    Args:
        logits: (N,) discriminator logits, any float type.

    Returns:
        (N,) float32 of 0 and 1, without gradient; NaN where the logit is NaN, so that a broken
        discriminator is not read as a score.
    """
    reward = (logits.detach() < 0).to(torch.float32)
    return reward.masked_fill(logits.isnan(), torch.nan)


def continuous_similarity(logits: Tensor) -> Tensor:
    """Return 1 - D with D = sigmoid(logits): how much a teacher the discriminator sees.

    Computed as sigmoid(-logits), which keeps the small values that 1 - D would round away.

    Args:
        logits: (N,) discriminator logits, any float type.

    Returns:
        (N,) float32 in 0..1, without gradient; NaN where the logit is NaN.
    """
    return torch.sigmoid(-logits.detach().to(torch.float32))


def total_reward(similarity: Tensor, answer: Tensor) -> Tensor:
    """Return R = similarity + answer, the reward of Equation 2.

    Args:
        similarity: (N,) in 0..1, from :func:`similarity_reward` or :func:`continuous_similarity`.
        answer: (N,) of 0 and 1, from the judge.

    Returns:
        (N,) in 0..2; NaN where either part is missing (NaN).

    Raises:
        ValueError: the shapes differ.
    """
    if similarity.shape != answer.shape:
        raise ValueError(
            f"similarity {tuple(similarity.shape)} and answer {tuple(answer.shape)} rewards "
            "differ in shape; give one of each for every response"
        )
    return similarity + answer
