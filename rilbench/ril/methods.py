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
        uses_teacher_bonus: each teacher response earns the similarity reward without a
            discriminator. A control: what RIL gains over it is what the verdicts are worth.
        normalize_std: GRPO divides the advantage by the group's standard deviation.
        aggregation: ``token-sum``: Dr.GRPO divides by a constant length; ``sequence-mean``: GRPO
            divides by each response's own length.
        is_rl: there is a policy loop; without one the run ends after SFT.
    """

    uses_teachers: bool
    uses_discriminator: bool
    uses_answer_reward: bool
    uses_teacher_bonus: bool = False
    normalize_std: bool = False
    aggregation: Aggregation = "token-sum"
    is_rl: bool = True


METHODS = {
    #                      teachers  discriminator  answer
    "ril": Method(True, True, True),
    "imitation": Method(True, True, False),
    "teacher-bonus": Method(True, False, True, uses_teacher_bonus=True),
    "teacher-rows": Method(True, False, True),
    "dr-grpo": Method(False, False, True),
    "grpo": Method(False, False, True, normalize_std=True, aggregation="sequence-mean"),
    "sft": Method(False, False, False, is_rl=False),
}
"""RIL (Algorithm 2), its two ablations, a control, and the three baselines of the paper.

The control is not in the paper: ``teacher-bonus`` costs no second model.
"""
