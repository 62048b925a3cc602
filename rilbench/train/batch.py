"""The rows of one step as the trainer sees them, and the record that is kept of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta

from rilbench.ril.discriminator import STUDENT_LABEL, TEACHER_LABEL, discriminator_messages


def nested(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """StepBatch of unequal length as one jagged tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


@dataclass(frozen=True)
class StepBatch:
    """All rows of a step, in the batch's order. ``N`` rows; tensors are on the CPU."""

    keys: list[str]
    question: list[str]
    source: list[str]
    text: list[str]
    group: torch.Tensor
    """(N,) int64: the same number for the rows of one question."""
    own: torch.Tensor
    """(N,) bool: sampled by the student."""
    answer: torch.Tensor
    """(N,) float32: the judge's verdict, 0 or 1, simulated errors included; NaN where missing."""
    answer_reward_before_noise: torch.Tensor
    """(N,) float32: the verdict without simulated errors."""
    tokens: list[int]
    finished: list[bool]
    """Whether the response ends with the end token."""
    image_tokens: list[int]
    judge_error: list[str] = field(default_factory=list)
    """Why the judge gave no verdict, row by row; empty where it did."""

    def __len__(self) -> int:
        return len(self.keys)


def session_of(key: str) -> int:
    """The session of a key ``{uid}_{session}_{index}``: which row of its group it is."""
    return int(key.rsplit("_", 2)[1])


def in_fixed_order(batch: KVBatchMeta) -> KVBatchMeta:
    """Order rows by (data set index, session): uids and arrival order differ between runs."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_info"]
    )
    index = [int(_plain(info)["index"]) for info in data["extra_info"]]
    order = sorted(range(len(index)), key=lambda i: (index[i], session_of(batch.keys[i])))
    batch.reorder(order)
    return batch


def by_length(batch: KVBatchMeta) -> KVBatchMeta:
    """Order rows by their number of tokens, so that a micro-batch pads little."""
    order = sorted(range(len(batch)), key=lambda i: (batch.tags[i]["seq_len"], i))
    batch.reorder(order)
    return batch


def read_rows(batch: KVBatchMeta, tokenizer: Any, image_token: int, own_rows: int) -> StepBatch:
    """Fetch what rewards and the record need: text, verdicts and names; no pixels."""
    fields = ["prompts", "responses", "rm_scores", "extra_fields", "extra_info"]
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
    responses = [r.tolist() for r in data["responses"].unbind()]
    prompts = [p.tolist() for p in data["prompts"].unbind()]
    groups: dict[str, int] = {}
    uids = [key.split("_", 1)[0] for key in batch.keys]
    return StepBatch(
        keys=list(batch.keys),
        question=[str(_plain(info)["question_id"]) for info in data["extra_info"]],
        source=[str(_plain(extra)["source"]) for extra in data["extra_fields"]],
        text=tokenizer.batch_decode(responses, skip_special_tokens=True),
        group=torch.tensor([groups.setdefault(uid, len(groups)) for uid in uids]),
        own=torch.tensor([session_of(key) < own_rows for key in batch.keys]),
        answer=torch.stack([scores.sum() for scores in data["rm_scores"].unbind()]).float(),
        answer_reward_before_noise=torch.tensor(
            [float(_plain(extra)["answer_reward_before_noise"]) for extra in data["extra_fields"]]
        ),
        tokens=[len(r) for r in responses],
        finished=[bool(r) and r[-1] == tokenizer.eos_token_id for r in responses],
        image_tokens=[p.count(image_token) for p in prompts],
        judge_error=[str(_plain(extra).get("judge_error", "")) for extra in data["extra_fields"]],
    )


def read_old_log_probs(batch: KVBatchMeta) -> list[float]:
    """The log-probability of each row's response under the policy before the update."""
    data = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=["old_log_probs"]
    )
    return [tokens.sum().item() for tokens in data["old_log_probs"].unbind()]


def discriminator_rows(tokenizer: Any, texts: Sequence[str], own: torch.Tensor) -> TensorDict:
    """The discriminator's own rows: text only, its own prompt, label 1 for student and 0 teacher.

    A plain TensorDict for `train_mini_batch` and `infer_batch`; the policy's rows are untouched.
    """
    ids = []
    for text in texts:
        prompt = tokenizer.apply_chat_template(discriminator_messages(text), tokenize=False)
        ids.append(torch.tensor(tokenizer.encode(prompt, add_special_tokens=False)))
    return TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": nested([torch.arange(len(i)) for i in ids]),
            "loss_mask": nested([torch.ones_like(i) for i in ids]),
            "label": torch.where(own, STUDENT_LABEL, TEACHER_LABEL).float(),
            "weight": torch.ones(len(ids)),
        },
        batch_size=len(ids),
    )


def write_record(
    path: Path,
    rows: StepBatch,
    similarity: torch.Tensor,
    probability: torch.Tensor,
    advantages: torch.Tensor,
    old_log_probs: list[float] | None,
) -> None:
    """Keep every row of a step as JSON lines, so that any reward can be traced.

    ``old_log_probs`` are sums over a row's tokens, where they were computed (not at mu = 1).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i in range(len(rows)):
            row = {
                "question": rows.question[i],
                "row": session_of(rows.keys[i]),
                "source": rows.source[i],
                "response": rows.text[i],
                "tokens": rows.tokens[i],
                "finished": rows.finished[i],
                "image_tokens": rows.image_tokens[i],
                "answer": _number(rows.answer[i].item()),
                "answer_reward_before_noise": _number(rows.answer_reward_before_noise[i].item()),
                "similarity": _number(similarity[i].item()),
                "discriminator": _number(round(probability[i].item(), 6)),
                "advantage": _number(round(advantages[i].item(), 6)),
            }
            if rows.judge_error and rows.judge_error[i]:
                row["judge_error"] = rows.judge_error[i]
            if old_log_probs is not None:
                row["old_log_prob"] = _number(old_log_probs[i])
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _number(value: float) -> float | None:
    """A JSON number; what is not finite becomes null."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """TransferQueue wraps some non-tensor values."""
    return value.data if hasattr(value, "data") and not isinstance(value, dict) else value
