"""The responses of one step as the trainer sees them, and the record that is kept of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions

from rilbench.ril.rewards import RewardInputs
from rilbench.ril.step import StepSignal


@dataclass(frozen=True)
class StepBatch:
    """All N responses of a step, in the batch's order. Tensors are on the CPU."""

    keys: list[str]
    """TransferQueue's keys, ``{uid}_{session}_{index}``."""
    question_id: list[str]
    source: list[str]
    """``student``, or the teacher's name."""
    response: list[str]
    group: torch.Tensor
    """(N,) int64: the same number for the responses to one question."""
    is_student: torch.Tensor
    """(N,) bool: sampled by the student."""
    answer_reward: torch.Tensor
    """(N,) float32: the judge's verdict, 0 or 1, simulated errors included; NaN where missing."""
    answer_reward_before_noise: torch.Tensor
    """(N,) float32: the verdict without simulated errors."""
    tokens: list[int]
    """Length of each response."""
    finished: list[bool]
    """Whether the response ends with the end token."""
    image_tokens: list[int]
    judge_error: list[str] = field(default_factory=list)
    """Why the judge gave no verdict; "" where it did."""
    question: list[str] = field(default_factory=list)
    reference: list[str] = field(default_factory=list)
    """The question's reference answer."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def reward_inputs(self) -> RewardInputs:
        """What registered rewards see."""
        return RewardInputs(
            self.question, self.reference, self.response, self.is_student.tolist(), self.tokens
        )


def nested(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of unequal length as one jagged tensor."""
    return torch.nested.as_nested_tensor(list(values), layout=torch.jagged)


def session_of(key: str) -> int:
    """The session of a key ``{uid}_{session}_{index}``: the response's place in its group."""
    return int(key.rsplit("_", 2)[1])


def in_fixed_order(batch: KVBatchMeta) -> KVBatchMeta:
    """Sort by (data set index, session): uids and the order of arrival differ between runs."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_info"]
    )
    index = [int(_plain(info)["index"]) for info in data["extra_info"]]
    order = sorted(range(len(index)), key=lambda i: (index[i], session_of(batch.keys[i])))
    batch.reorder(order)
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
        keys=list(batch.keys),
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
    written = tq.kv_batch_put(
        keys=batch.keys,
        partition_id=batch.partition_id,
        fields=TensorDict(fields, batch_size=len(responses)),
    )
    if batch.fields is not None:
        # After verl's old-log-prob pass the batch lists the fields it had then, and the update
        # reads no others: without this line it would miss these and the reference's.
        batch.fields = written.fields


def write_rollouts(
    path: Path,
    responses: StepBatch,
    signal: StepSignal,
    logits: torch.Tensor | None,
    extra_rewards: Mapping[str, torch.Tensor],
    old_log_probs: list[float] | None,
) -> None:
    """Keep every response of a step as JSON lines, so that any reward can be traced.

    Args:
        path: ``rollouts/step_N.jsonl``, replaced.
        responses: the step's.
        signal: what they earned.
        logits: (N,) of the discriminator, if there is one.
        extra_rewards: registered rewards by name, (N,) each.
        old_log_probs: of `read_old_log_probs`, where they were computed (not at mu = 1).
    """
    probability = torch.full((len(responses),), 0.5) if logits is None else torch.sigmoid(logits)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i in range(len(responses)):
            line: dict[str, Any] = {
                "question_id": responses.question_id[i],
                "session": session_of(responses.keys[i]),
                "source": responses.source[i],
                "response": responses.response[i],
                "tokens": responses.tokens[i],
                "finished": responses.finished[i],
                "image_tokens": responses.image_tokens[i],
                "answer_reward": json_number(responses.answer_reward[i].item()),
                "answer_reward_before_noise": json_number(
                    responses.answer_reward_before_noise[i].item()
                ),
                "similarity_reward": json_number(signal.similarity_reward[i].item()),
                "discriminator_prob": json_number(round(probability[i].item(), 6)),
                "reward": json_number(round(signal.reward[i].item(), 6)),
                "advantage": json_number(round(signal.learned_advantage[i].item(), 6)),
            }
            if extra_rewards:
                line["extra_rewards"] = {k: v[i].item() for k, v in extra_rewards.items()}
            if responses.judge_error and responses.judge_error[i]:
                line["judge_error"] = responses.judge_error[i]
            if old_log_probs is not None:
                line["old_log_prob"] = json_number(old_log_probs[i])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def json_number(value: float) -> float | None:
    """A JSON number; NaN and infinity become null."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """TransferQueue wraps some non-tensor values."""
    return value.data if hasattr(value, "data") and not isinstance(value, dict) else value
