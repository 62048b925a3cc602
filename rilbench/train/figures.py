"""The figures of one step that ``metrics.jsonl`` keeps, from its rows."""

from __future__ import annotations

import torch

from rilbench.train.rows import Rows


def row_figures(rows: Rows, similarity: torch.Tensor) -> dict[str, float]:
    """Means over the student's and the teachers' rows: rewards, tokens, unfinished responses.

    Args:
        rows: of the step, N of them.
        similarity: (N,) rewards.
    """
    found: dict[str, float] = {}
    for name, chosen in (("student", rows.own), ("teacher", ~rows.own)):
        index = chosen.nonzero()[:, 0].tolist()
        if not index:
            continue
        found |= {
            f"answer_{name}": rows.answer[chosen].mean().item(),
            f"answer_true_{name}": rows.answer_true[chosen].mean().item(),
            f"similarity_{name}": similarity[chosen].mean().item(),
            f"tokens_{name}": sum(rows.tokens[i] for i in index) / len(index),
            f"unfinished_{name}": sum(not rows.finished[i] for i in index) / len(index),
        }
    return found


def groups_without_signal(rewards: torch.Tensor, group: torch.Tensor) -> float:
    """The share of groups whose rewards are all equal, so that every advantage is 0.

    Args:
        rewards: (N,) finite.
        group: (N,) int64, 0 to K - 1.
    """
    count = int(group.max()) + 1
    empty = torch.zeros(count, dtype=rewards.dtype)
    highest = empty.scatter_reduce(0, group, rewards, "amax", include_self=False)
    lowest = empty.scatter_reduce(0, group, rewards, "amin", include_self=False)
    return (highest == lowest).float().mean().item()


def token_counts(rows: Rows, *, teacher_rows_in_loss: bool, passes: int) -> dict[str, int]:
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
