"""What one RIL step needs to know, typed, for the trainer and for the rollout workers.

verl carries it as plain values (``config.ril`` and the agent loop's file); both ends read it back
through `StepConfig.parse`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rilbench.config import Recipe
from rilbench.ril.methods import METHODS, Method

_LISTS = ("judge_urls", "extra_rewards")
"""Tuples, which verl's configuration carries as lists."""


@dataclass(frozen=True)
class StepConfig:
    """Settings of a step; the names are the recipe's."""

    run_dir: str
    method: str
    seed: int
    num_student_responses: int  # of one question
    num_teacher_responses: int  # of one question
    # Of a question's responses, how many always go to one device; 0: its prompt is not shared.
    rows_together: int
    max_response_tokens: int
    # Rollout.
    mix: str
    repetition_penalty: float
    judge_urls: tuple[str, ...]
    judge_model: str
    judge_fields: str  # of a request, as JSON; "": the client's own
    judge_cache: str
    judge_timeout: float  # seconds
    max_failed: float
    max_wait: float  # minutes
    false_positive_rate: float
    false_negative_rate: float
    # Rewards and advantages.
    similarity: Literal["binary", "continuous"]
    extra_rewards: tuple[str, ...]
    teachers_in_loss: bool
    max_missing: float
    # Equation 2.
    mu: int
    clip_eps: float
    kl_coef: float
    length_scale: float
    # Equation 1.
    discriminator_mu: int
    pretrain_steps: int
    pretrain_batch_size: int
    pretrain_lr: float
    pretrain_final_lr: float
    # Checkpoints.
    keep: int
    export: str
    # A rehearsal's: every response is as long as it may be.
    full_length: bool = False

    @property
    def group_responses(self) -> int:
        """Responses to one question, the student's and the teachers'."""
        return self.num_student_responses + self.num_teacher_responses

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        run_dir: Path,
        judge_urls: Sequence[str] = (),
        judge_model: str = "",
        judge_cache: Path | None = None,
    ) -> StepConfig:
        """Return a recipe's step settings.

        Args:
            recipe: the resolved recipe.
            run_dir: the run's folder.
            judge_urls: where the judge listens; only the rollout workers need it.
            judge_model: the model to ask for there; "": the only one.
            judge_cache: file that keeps verdicts; None where asking again costs nothing.
        """
        policy, discriminator = recipe.policy, recipe.discriminator
        return cls(
            run_dir=str(run_dir),
            method=recipe.method,
            seed=recipe.seed,
            num_student_responses=recipe.num_student_responses,
            num_teacher_responses=recipe.num_teacher_responses,
            rows_together=recipe.rows_together,
            max_response_tokens=recipe.data.max_response_tokens,
            mix=recipe.teachers.mix,
            repetition_penalty=recipe.sampling.repetition_penalty,
            judge_urls=tuple(judge_urls),
            judge_model=judge_model,
            judge_fields=json.dumps(recipe.judge.fields) if judge_model else "",
            judge_cache=str(judge_cache or ""),
            judge_timeout=recipe.judge.timeout,
            max_failed=recipe.data.max_failed,
            max_wait=recipe.schedule.max_wait,
            false_positive_rate=recipe.judge.false_positive_rate,
            false_negative_rate=recipe.judge.false_negative_rate,
            similarity=cast('Literal["binary", "continuous"]', recipe.reward.similarity),
            extra_rewards=recipe.reward.extra,
            teachers_in_loss=policy.teachers_in_loss,
            max_missing=recipe.judge.max_missing,
            mu=policy.mu,
            clip_eps=policy.clip_eps,
            kl_coef=policy.kl_coef if recipe.uses_reference else 0.0,
            length_scale=float(policy.length_scale or recipe.data.max_response_tokens),
            discriminator_mu=discriminator.mu,
            pretrain_steps=discriminator.pretrain_steps,
            pretrain_batch_size=discriminator.pretrain_batch_size,
            pretrain_lr=discriminator.pretrain_lr,
            pretrain_final_lr=discriminator.pretrain_final_lr,
            keep=recipe.schedule.keep,
            export=recipe.schedule.export,
        )

    @property
    def method_spec(self) -> Method:
        """What the method uses."""
        return METHODS[self.method]

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> StepConfig:
        """Return the configuration that `as_dict` gave."""
        return cls(**{**values, **{name: tuple(values[name]) for name in _LISTS}})

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as verl's configuration carries them."""
        return {**dataclasses.asdict(self), **{name: list(getattr(self, name)) for name in _LISTS}}
