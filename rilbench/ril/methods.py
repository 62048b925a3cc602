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
        pairs_with_teachers: GAD's discriminator: each sample has a saved teacher response to the
            same question beside it, D learns by Bradley-Terry which of the two is the teacher's,
            and its score is the reward. The group is the student's samples alone.
        uses_teacher_log_probs: on-policy distillation: a teacher gives the log-probability of each
            token that the student sampled, and no group has a reward.
        normalize_std: GRPO divides the advantage by the group's standard deviation.
        aggregation: ``token-sum``: Dr.GRPO divides by a constant length; ``sequence-mean``: GRPO
            divides by each response's own length.
        is_rl: there is a policy loop; without one the run ends after SFT.
    """

    uses_teachers: bool
    uses_discriminator: bool
    uses_answer_reward: bool
    uses_teacher_bonus: bool = False
    pairs_with_teachers: bool = False
    uses_teacher_log_probs: bool = False
    normalize_std: bool = False
    aggregation: Aggregation = "token-sum"
    is_rl: bool = True

    @property
    def uses_saved_responses(self) -> bool:
        """Whether the loop needs the teachers' saved responses."""
        return self.uses_teachers or self.pairs_with_teachers

    @property
    def learns_from_teachers(self) -> bool:
        """Whether the loop needs teachers at all."""
        return self.uses_saved_responses or self.uses_teacher_log_probs

    @property
    def uses_reference(self) -> bool:
        """Whether a KL to the reference is part of the loss; in distillation the teacher's is."""
        return self.is_rl and not self.uses_teacher_log_probs


METHODS = {
    #                      teachers  discriminator  answer
    "ril": Method(True, True, True),
    "imitation": Method(True, True, False),
    "teacher-bonus": Method(True, False, True, uses_teacher_bonus=True),
    "teacher-rows": Method(True, False, True),
    "dr-grpo": Method(False, False, True),
    "grpo": Method(False, False, True, normalize_std=True, aggregation="sequence-mean"),
    "gad": Method(False, True, False, pairs_with_teachers=True, normalize_std=True),
    "opd": Method(False, False, False, uses_teacher_log_probs=True),
    "sft": Method(False, False, False, is_rl=False),
}
"""RIL (Algorithm 2), its two ablations, a control, and the baselines of the paper; then its
neighbours, which learn from teachers in another way.

Not in the paper: the control ``teacher-bonus``, which costs no second model; ``gad``, generative
adversarial distillation (arXiv 2511.10643); ``opd``, on-policy distillation by the reverse KL to a
teacher, token by token.
"""
