"""The responses of one step, and the record that is kept of them; needs no verl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rilbench.ril.rewards import RewardInputs
from rilbench.ril.step import StepSignal


@dataclass(frozen=True)
class StepBatch:
    """All N responses of a step, in the batch's order. Tensors are on the CPU."""

    session: list[int]
    """Each response's place in its group."""
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
    paired_response: list[str] = field(default_factory=list)
    """A teacher's response to the same question, where the method pairs them; else empty."""

    def __len__(self) -> int:
        return len(self.response)

    @property
    def reward_inputs(self) -> RewardInputs:
        """What registered rewards see."""
        return RewardInputs(
            self.question, self.reference, self.response, self.is_student.tolist(), self.tokens
        )


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
        old_log_probs: of each response under π_old, where they were computed (not at mu = 1).
    """
    probability = None if logits is None else torch.sigmoid(logits)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for i in range(len(responses)):
            line: dict[str, Any] = {
                "question_id": responses.question_id[i],
                "session": responses.session[i],
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
                "discriminator_prob": None
                if probability is None
                else json_number(round(probability[i].item(), 6)),
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
