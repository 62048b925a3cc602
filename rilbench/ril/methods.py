"""The training methods, and what each of them uses. No other module compares a method's name."""

from dataclasses import dataclass
from typing import Literal

Aggregation = Literal["token-sum", "sequence-mean"]
"""How a response's tokens become one number in the policy loss."""


@dataclass(frozen=True)
class Method:
    """What a method uses.

    Attributes:
        uses_teachers: G saved teacher responses join the student's G samples in a group.
        uses_discriminator: responses earn the similarity reward, 1[D < 0.5].
        uses_answer_reward: responses earn the judge's verdict.
        normalize_std: GRPO divides the advantage by the group's standard deviation.
        aggregation: ``token-sum``: Dr.GRPO divides by a constant length; ``sequence-mean``: GRPO
            divides by each response's own length.
        is_rl: there is a policy loop; without one the run ends after SFT.
    """

    uses_teachers: bool
    uses_discriminator: bool
    uses_answer_reward: bool
    normalize_std: bool = False
    aggregation: Aggregation = "token-sum"
    is_rl: bool = True


METHODS = {
    #                      teachers  discriminator  answer
    "ril": Method(True, True, True),
    "imitation": Method(True, True, False),
    "teacher-rows": Method(True, False, True),
    "dr-grpo": Method(False, False, True),
    "grpo": Method(False, False, True, normalize_std=True, aggregation="sequence-mean"),
    "sft": Method(False, False, False, is_rl=False),
}
"""RIL (Algorithm 2), its two ablations, and the three baselines that it is compared with."""
