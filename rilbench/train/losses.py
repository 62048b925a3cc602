"""verl's loss interface on one side, the method's equations on the other.

verl calls a loss for each micro-batch, adds the results up, and averages gradients over ranks;
so each loss divides by the whole batch's size and multiplies by the number of ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from rilbench.ril.discriminator import discriminator_accuracy, discriminator_loss
from rilbench.ril.distillation import distillation_advantages
from rilbench.ril.methods import Aggregation
from rilbench.ril.policy import policy_loss
from rilbench.train.batch import TEACHER_FIELD


def last_logit(values: torch.Tensor) -> torch.Tensor:
    """The logit at each sequence's last token: (N,) from a nested (N, j)."""
    ends = values.offsets()[1:] - 1  # type: ignore[attr-defined]  # nested tensors have it
    return values.values()[ends].float()


def _sum(value: torch.Tensor) -> Metric:
    return Metric(value=value.detach(), aggregation=AggregationType.SUM)


def discriminator_loss_fn(
    model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Equation 1 on one micro-batch of the discriminator's batch, averaged over the batch."""
    logits = last_logit(model_output["values"])
    labels, weights = data["label"], data["weight"]
    size = float(data["global_batch_size"])
    loss = discriminator_loss(logits, labels, weights, size) * data["dp_size"]
    accuracy = discriminator_accuracy(logits, labels, weights, size) * data["dp_size"]
    return loss, {"loss_d": _sum(loss), "accuracy_before": _sum(accuracy)}


def bradley_terry_loss_fn(
    model_output: dict[str, torch.Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[torch.Tensor, dict[str, Any]]:
    """GAD's loss on one micro-batch, by its gradient: a pair's responses may lie far apart.

    ``weight`` of a row is the loss's gradient by its logit
    (`rilbench.ril.discriminator.bradley_terry_gradient`), so the loss here is not GAD's in value.
    """
    loss = (last_logit(model_output["values"]) * data["weight"]).sum() * data["dp_size"]
    return loss, {}


def policy_loss_fn(
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
    *,
    clip_eps: float,
    kl_coef: float,
    length_scale: float,
    aggregation: Aggregation,
    on_policy: bool,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Equation 2 on one micro-batch; with a teacher's log-probabilities, distillation.

    ``on_policy``: one optimiser step for each batch, so that π_old is the policy of this very
    forward: its own log-probabilities, detached, stand for π_old and the ratio is exactly 1.
    The entropy is measured over the student's own tokens only, and is not part of the loss.
    """
    log_prob = no_padding_2_padding(model_output["log_probs"], data)
    fields = ["response_mask", "advantages", "is_student"]
    fields += [] if on_policy else ["old_log_probs"]
    given = data.keys()
    fields += [name for name in ("ref_log_prob", TEACHER_FIELD) if name in given]
    padded = data.select(*fields).to_padded_tensor()
    old = log_prob.detach() if on_policy else padded["old_log_probs"]
    ranks = data["dp_size"]
    if TEACHER_FIELD in given:
        advantages = distillation_advantages(log_prob, padded[TEACHER_FIELD])
    else:
        advantages = padded["advantages"][:, 0]  # one for each response, repeated over its tokens
    result = policy_loss(
        log_prob,
        old,
        padded.get("ref_log_prob", None),
        advantages,
        padded["response_mask"],
        clip_eps=clip_eps,
        kl_coef=kl_coef,
        length_scale=length_scale,
        num_responses=int(data["global_batch_size"]),
        aggregation=aggregation,
    )
    entropy = no_padding_2_padding(model_output["entropy"].detach(), data)
    student_token = padded["is_student"].bool() & padded["response_mask"].bool()
    metrics = {
        "policy_loss": _sum(result.loss * ranks),
        "kl": _sum(result.kl * ranks),
        "kl_tokens": _sum(result.tokens * ranks),
        "entropy_sum": _sum(entropy.where(student_token, 0.0).sum() * ranks),
        "student_tokens": _sum(student_token.sum() * ranks),
        "ratio_sum": _sum(result.ratio_sum * ranks),
        "clipped": _sum(result.clipped * ranks),
        "ratio_max": Metric(value=result.ratio_max.detach(), aggregation=AggregationType.MAX),
    }
    if TEACHER_FIELD in given:
        kept = padded["response_mask"].bool()
        difference = log_prob.detach() - padded[TEACHER_FIELD]
        metrics["teacher_kl_sum"] = _sum(difference.where(kept, 0.0).sum() * ranks)
    return result.loss * ranks, metrics
