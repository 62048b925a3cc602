"""The metrics of one step that ``metrics.jsonl`` keeps, computed from its responses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rilbench.ril.methods import Method
from rilbench.ril.step import StepSignal
from rilbench.train.step_batch import StepBatch, json_number


def reward_metrics(
    responses: StepBatch,
    signal: StepSignal,
    extra_rewards: Mapping[str, torch.Tensor],
    method: Method,
) -> dict[str, float]:
    """Means over the student's and over the teachers' responses: rewards, length, unfinished.

    Of several teachers the rewards are there for each as well: the discriminator may take one
    alone for a teacher, and it need not be the better one.

    Answer rewards are averaged over the verdicts that the judge gave, NaN where it gave none;
    ``missing_verdicts`` counts the others. ``reward`` is the mean over all judged responses. GAD's
    reward is no share, and has a name of its own: ``discriminator_score``.
    """
    similarity = "discriminator_score" if method.pairs_with_teachers else "similarity_reward"
    judged = signal.reward[~signal.answer_reward.isnan()]
    metrics: dict[str, float] = {
        "missing_verdicts": int(responses.answer_reward.isnan().sum()),
        "reward": judged.mean().item(),
    }
    for side, chosen in (("student", responses.is_student), ("teacher", ~responses.is_student)):
        index = chosen.nonzero()[:, 0].tolist()
        if not index:
            continue
        before_noise = responses.answer_reward_before_noise[chosen].nanmean().item()
        metrics |= {
            f"answer_reward_{side}": responses.answer_reward[chosen].nanmean().item(),
            f"answer_reward_before_noise_{side}": before_noise,
            f"{similarity}_{side}": signal.similarity_reward[chosen].mean().item(),
            f"tokens_{side}": sum(responses.tokens[i] for i in index) / len(index),
            f"unfinished_{side}": sum(not responses.finished[i] for i in index) / len(index),
        }
        for name, values in extra_rewards.items():
            metrics[f"reward_{name}_{side}"] = values[chosen].mean().item()
    teachers = sorted(set(responses.source) - {"student"})
    for name in teachers if len(teachers) > 1 else ():
        chosen = torch.tensor([source == name for source in responses.source])
        metrics |= {
            f"answer_reward_{name}": responses.answer_reward[chosen].nanmean().item(),
            f"{similarity}_{name}": signal.similarity_reward[chosen].mean().item(),
        }
    return metrics


def advantage_metrics(responses: StepBatch, signal: StepSignal, method: Method) -> dict[str, float]:
    """Whether groups are centred, and the share of groups that teach nothing.

    Nothing in distillation, whose groups have no reward.
    """
    if method.uses_teacher_log_probs:
        return {}
    group_sums = torch.zeros(int(responses.group.max()) + 1).index_add_(
        0, responses.group, signal.learned_advantage
    )
    return {
        "advantage_group_sum_max": group_sums.abs().max().item(),
        "groups_without_signal": groups_without_signal(signal.advantage, responses.group),
    }


def groups_without_signal(advantages: torch.Tensor, group: torch.Tensor) -> float:
    """The share of groups whose advantages are all equal, and so 0, as they are of equal rewards.

    Args:
        advantages: (N,) finite; or rewards, where none is missing.
        group: (N,) int64, 0 to K - 1.
    """
    count = int(group.max()) + 1
    empty = torch.zeros(count, dtype=advantages.dtype)
    highest = empty.scatter_reduce(0, group, advantages, "amax", include_self=False)
    lowest = empty.scatter_reduce(0, group, advantages, "amin", include_self=False)
    return (highest == lowest).float().mean().item()


def token_metrics(responses: StepBatch, *, teachers_in_loss: bool, mu: int) -> dict[str, int]:
    """The step's tokens: sampled by the student, taken from teachers, trained on (mu times)."""
    sampled = sum(
        n for n, own in zip(responses.tokens, responses.is_student.tolist(), strict=True) if own
    )
    from_teachers = sum(responses.tokens) - sampled
    return {
        "sampled_tokens": sampled,
        "teacher_tokens": from_teachers,
        "trained_tokens": mu * (sampled + from_teachers * teachers_in_loss),
    }


def policy_metrics(verl_metrics: Mapping[str, Any]) -> dict[str, float]:
    """The policy update's metrics, from the sums that verl added up over micro-batches and ranks.

    ``entropy`` is a mean over the student's own tokens; ``kl`` is averaged as in Equation 2.
    """
    actor = {
        name.removeprefix("actor/"): value
        for name, value in verl_metrics.items()
        if name.startswith("actor/")
    }
    tokens = max(1.0, float(actor.get("kl_tokens", 0.0)))
    distilled = {}
    if "teacher_kl_sum" in actor:  # an estimate of the reverse KL to the teacher, for each token
        distilled["teacher_kl"] = float(actor["teacher_kl_sum"]) / tokens
    return {
        **distilled,
        "kl": float(actor["kl"]),
        "policy_loss": float(actor["policy_loss"]),
        "entropy": float(actor["entropy_sum"]) / max(1.0, float(actor["student_tokens"])),
        "ratio_mean": float(actor["ratio_sum"]) / tokens,
        "ratio_max": float(actor["ratio_max"]),
        "clip_fraction": float(actor["clipped"]) / tokens,
        "grad_norm": float(actor["grad_norm"]),
        "learning_rate": float(actor["lr"]),
    }


def as_json(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON numbers: integers stay integers, NaN and infinity become null."""
    return {
        name: value if isinstance(value, int) else json_number(float(value))
        for name, value in metrics.items()
    }
