"""A step's responses in verl's TransferQueue: read as a `StepBatch`, and written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from rilbench.ril.step import StepSignal
from rilbench.train.step_batch import StepBatch

ROW_FIELDS = (
    "input_ids",
    "position_ids",
    "prompts",
    "responses",
    "response_mask",
    "loss_mask",
    "question",
    "multi_modal_inputs",
)
"""What the policy's engine reads of a row to give its log-probabilities."""
SIGNAL_FIELDS = ("advantages", "is_student")
"""What the update needs more."""
TEACHER_FIELD = "teacher_log_probs"
"""What distillation's update needs more: a teacher's of each token, (N, j)."""


def nested(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of unequal length as one jagged tensor."""
    return torch.nested.as_nested_tensor(list(values), layout=torch.jagged)


def session_of(key: str) -> int:
    """The session of a key ``{uid}_{session}_{index}``: the response's place in its group."""
    return int(key.rsplit("_", 2)[1])


def in_fixed_order(batch: KVBatchMeta) -> KVBatchMeta:
    """Sort by (data set index, session): uids and the order of arrival differ between runs."""
    place = [
        (tag["question"], session_of(key)) for key, tag in zip(batch.keys, batch.tags, strict=True)
    ]
    batch.reorder(sorted(range(len(place)), key=place.__getitem__))
    return batch


def balanced_order(lengths: Sequence[int], ranks: int, mini_batches: int = 1) -> list[int]:
    """The order in which every rank of every mini-batch gets as many rows and as much work.

    verl gives rank r the r-th contiguous part of a batch, and a rank's m-th mini-batch is the m-th
    part of that. Here a mini-batch has the same rows on any number of ranks.

    Args:
        lengths: tokens of each row; those of the first mini-batch come first.
        ranks: divides the rows of a mini-batch.
        mini_batches: divides the rows.

    Returns:
        Indices of the rows; a rank's own are sorted by length, so that a micro-batch pads little.
    """
    size = len(lengths) // mini_batches
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for first in range(0, len(lengths), size):
        work = calculate_workload(torch.tensor(lengths[first : first + size]))
        parts = get_seqlen_balanced_partitions(work.tolist(), k_partitions=ranks, equal_size=True)
        for share, part in zip(shares, parts, strict=True):
            share += sorted((first + i for i in part), key=lambda i: (lengths[i], i))
    return [i for share in shares for i in share]


def grouped_order(
    prompts: Sequence[int],
    responses: Sequence[int],
    *,
    group: int,
    rows_together: int,
    ranks: int,
    mini_batches: int = 1,
) -> list[int]:
    """As `balanced_order`, but a question's rows stay neighbours, for their prompt is shared.

    A rank gets as many whole groups as it has room for. The groups that are left over, those of
    least work, are dealt in pieces of ``rows_together`` rows.

    Args:
        prompts: tokens of each row's prompt; the rows of a group follow each other.
        responses: tokens of each row's response.
        group: rows of a group.
        rows_together: divides the rows of a group, and those of a rank in a mini-batch.
        ranks: divides the rows of a mini-batch.
        mini_batches: divides the groups.

    Returns:
        Indices of the rows.
    """

    def work(rows: range) -> int:
        """Tokens to compute."""
        return prompts[rows.start] + sum(responses[row] for row in rows)

    size = len(prompts) // mini_batches
    whole = size // ranks // group  # groups that fit on a rank
    shares: list[list[int]] = [[] for _ in range(ranks)]
    for first in range(0, len(prompts), size):
        groups = [range(start, start + group) for start in range(first, first + size, group)]
        groups.sort(key=work, reverse=True)
        dealt: list[list[range]] = [[] for _ in range(ranks)]
        if whole:
            parts = get_seqlen_balanced_partitions(
                [work(rows) for rows in groups[: ranks * whole]],
                k_partitions=ranks,
                equal_size=True,
            )
            dealt = [[groups[i] for i in sorted(part)] for part in parts]
        pieces = [
            range(start, start + rows_together)
            for rows in groups[ranks * whole :]
            for start in range(rows.start, rows.stop, rows_together)
        ]
        loads = [sum(map(work, rows)) for rows in dealt]
        room = [(size // ranks - whole * group) // rows_together for _ in range(ranks)]
        for piece in sorted(pieces, key=work, reverse=True):
            rank = min((r for r in range(ranks) if room[r]), key=loads.__getitem__)
            dealt[rank].append(piece)
            loads[rank] += work(piece)
            room[rank] -= 1
        for share, mine in zip(shares, dealt, strict=True):
            rest = sorted(mine[whole:], key=lambda rows: rows.start)  # neighbours of one question
            share += [row for rows in (*mine[:whole], *rest) for row in rows]
    return [row for share in shares for row in share]


def read_batch(
    batch: KVBatchMeta, tokenizer: Any, image_token: int, num_student_responses: int
) -> StepBatch:
    """Fetch from TransferQueue what rewards and the record need: everything but pixels."""
    fields = ["prompts", "responses", "rm_scores", "extra_fields", "extra_info"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    responses = [r.tolist() for r in data["responses"].unbind()]
    prompts = [p.tolist() for p in data["prompts"].unbind()]
    infos = [_plain(info) for info in data["extra_info"]]
    extras = [_plain(extra) for extra in data["extra_fields"]]
    group_numbers: dict[str, int] = {}
    uids = [key.split("_", 1)[0] for key in batch.keys]
    return StepBatch(
        session=[session_of(key) for key in batch.keys],
        question_id=[str(info["question_id"]) for info in infos],
        source=[str(extra["source"]) for extra in extras],
        response=tokenizer.batch_decode(responses, skip_special_tokens=True),
        group=torch.tensor([group_numbers.setdefault(uid, len(group_numbers)) for uid in uids]),
        is_student=torch.tensor([session_of(key) < num_student_responses for key in batch.keys]),
        answer_reward=torch.stack([scores.sum() for scores in data["rm_scores"].unbind()]).float(),
        answer_reward_before_noise=torch.tensor(
            [float(extra["answer_reward_before_noise"]) for extra in extras]
        ),
        tokens=[len(r) for r in responses],
        finished=[bool(r) and r[-1] == tokenizer.eos_token_id for r in responses],
        image_tokens=[p.count(image_token) for p in prompts],
        judge_error=[str(extra.get("judge_error", "")) for extra in extras],
        question=[str(info["question"]) for info in infos],
        reference=[str(extra["reference"]) for extra in extras],
        paired_response=[e["paired_response"] for e in extras if "paired_response" in e],
    )


def read_old_log_probs(batch: KVBatchMeta) -> list[float]:
    """Each response's log-probability under the policy before the update, summed over tokens."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs"]
    )
    return [tokens.sum().item() for tokens in data["old_log_probs"].unbind()]


def write_back(batch: KVBatchMeta, responses: StepBatch, signal: StepSignal) -> None:
    """Hand rewards and advantages to verl, which wants them for each token.

    The reward goes on a response's last token, the advantage on every token.
    """

    def on_each_token(values: torch.Tensor) -> torch.Tensor:
        return nested(
            [torch.full((n,), v) for n, v in zip(responses.tokens, values.tolist(), strict=True)]
        )

    scores = [torch.zeros(n) for n in responses.tokens]
    for score, reward in zip(scores, signal.reward, strict=True):
        score[-1] = reward
    advantages = on_each_token(signal.learned_advantage)
    fields = {
        "rm_scores": nested(scores),
        "advantages": advantages,
        "returns": advantages,
        "values": nested([torch.zeros(n) for n in responses.tokens]),
        "is_student": on_each_token(responses.is_student),
    }
    tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(fields, batch_size=len(responses)),
    )


def _plain(value: Any) -> Any:
    """TransferQueue wraps some non-tensor values."""
    return value.data if hasattr(value, "data") and not isinstance(value, dict) else value
