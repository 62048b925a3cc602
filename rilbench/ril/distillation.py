"""On-policy distillation: what a sampled token earns is how much likelier the teacher finds it.

The student samples, and a teacher gives the log-probability of each sampled token. Their difference
is the token's advantage, so that the policy gradient is that of the reverse KL to the teacher. verl
calls it the k1 loss with policy gradient.
"""

from torch import Tensor

LOG_RATIO_CLAMP = 10.0
"""As verl's ``loss_max_clamp``: a token that the teacher nearly excludes is not the whole batch."""


def distillation_advantages(log_prob: Tensor, teacher_log_prob: Tensor) -> Tensor:
    """Return log p_teacher - log p_student of each token, cut at ±:data:`LOG_RATIO_CLAMP`.

    Args:
        log_prob: (B, T) of the policy that is updated.
        teacher_log_prob: (B, T) of the teacher, for the same tokens.

    Returns:
        (B, T), without gradient. Its mean over the policy's samples is minus the reverse KL.
    """
    difference = teacher_log_prob.to(log_prob.dtype) - log_prob
    return difference.detach().clamp(-LOG_RATIO_CLAMP, LOG_RATIO_CLAMP)
