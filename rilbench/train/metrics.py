"""The figures of one step that ``metrics.jsonl`` keeps, from its rows."""

from __future__ import annotations

import torch

from rilbench.train.batch import StepBatch


def row_figures(rows: StepBatch, similarity: torch.Tensor) -> dict[str, float]:
    """Means over the student's and the teachers' rows: rewards, tokens, unfinished responses.

    Of the judge's verdicts the mean is over those that there are, NaN where there is none;
    ``missing_verdicts`` counts the others.

    Args:
        rows: of the step, N of them.
        similarity: (N,) rewards.
    """
    found: dict[str, float] = {"missing_verdicts": int(rows.answer.isnan().sum())}
    for name, chosen in (("student", rows.own), ("teacher", ~rows.own)):
        index = chosen.nonzero()[:, 0].tolist()
        if not index:
            continue
        found |= {
            f"answer_reward_{name}": rows.answer[chosen].nanmean().item(),
            f"answer_reward_before_noise_{name}": rows.answer_reward_before_noise[chosen]
            .nanmean()
            .item(),
            f"similarity_reward_{name}": similarity[chosen].mean().item(),
            f"tokens_{name}": sum(rows.tokens[i] for i in index) / len(index),
            f"unfinished_{name}": sum(not rows.finished[i] for i in index) / len(index),
        }
    return found


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


def token_counts(rows: StepBatch, *, teacher_rows_in_loss: bool, passes: int) -> dict[str, int]:
    """What the step cost in tokens: sampled by the student, taken from teachers, trained on.

    Args:
        rows: of the step.
        teacher_rows_in_loss: whether the policy learns from the teachers' rows.
        passes: of the policy's update over the rows (mu).
    """
    own = sum(n for n, is_own in zip(rows.tokens, rows.own.tolist(), strict=True) if is_own)
    saved = sum(rows.tokens) - own
    return {
        "sampled_tokens": own,
        "teacher_tokens": saved,
        "trained_tokens": passes * (own + saved * teacher_rows_in_loss),
    }
