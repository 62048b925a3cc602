"""What a response earns: R(q, o) = 1[D(q, o) < 0.5] + judge(q, a, o), so R is 0, 1 or 2.

The continuous similarity that the paper compares with (Fig. 6) is 1 - D. A reward of one's own is
one function from `RewardInputs` to one number for each response; it is added to R.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def discriminator_score(logits: Tensor) -> Tensor:
    """Return GAD's reward, the discriminator's score itself: minus the logit, in float32.

    Args:
        logits: (N,) discriminator logits, any float type.

    Returns:
        (N,) float32 of any size, without gradient. GRPO's division by the group's standard
        deviation gives it a scale.
    """
    return -logits.detach().to(torch.float32)


@dataclass(frozen=True)
class RewardInputs:
    """What a registered reward sees of a step: N responses, group by group."""

    questions: Sequence[str]
    """The question's text, as the student read it."""
    references: Sequence[str]
    """The question's reference answer."""
    responses: Sequence[str]
    """The response's text, without special tokens."""
    is_student: Sequence[bool]
    """Whether the student sampled the response; else it is a teacher's."""
    num_tokens: Sequence[int]
    """The response's length in the student's tokens."""

    def __len__(self) -> int:
        return len(self.responses)


Reward = Callable[[RewardInputs], Sequence[float]]
"""A reward: one finite number for each response, in their order."""


def compute_rewards(rewards: Mapping[str, Reward], inputs: RewardInputs) -> dict[str, Tensor]:
    """Return each registered reward of a step's N responses, (N,) float32.

    Raises:
        ValueError: a reward raised, or returned something else than one finite number for each.
    """
    values: dict[str, Tensor] = {}
    for name, reward in rewards.items():
        try:
            value = torch.as_tensor(reward(inputs), dtype=torch.float32).detach().cpu()
        except Exception as error:  # a function of the user's may raise anything
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(
                f"reward {name!r} failed ({said}); let it return one number for each response"
            ) from error
        if value.shape != (len(inputs),):
            raise ValueError(
                f"reward {name!r} returned shape {tuple(value.shape)} for {len(inputs)} responses; "
                "return one number for each"
            )
        if not bool(value.isfinite().all()):
            wrong = int((~value.isfinite()).sum())
            raise ValueError(
                f"reward {name!r} is NaN or infinite for {wrong} of {len(inputs)} responses; "
                "return a finite number for each"
            )
        values[name] = value
    return values
