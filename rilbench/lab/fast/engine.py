"""A run of the method in one process, on the same recipe as `rilbench train`.

It is read from top to bottom: SFT, the discriminator's pre-training, then the loop of Algorithm 2.
The equations are `rilbench.ril`'s and the random choices are seeded as the product's, except for
the order of the questions; what differs is the machinery. verl's path is the product: tests compare
a step of both.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.lab.fast.discriminator import Discriminator
from rilbench.lab.fast.groups import Groups, TrainingData
from rilbench.lab.fast.prompts import Student
from rilbench.lab.fast.teachers import Teachers
from rilbench.model.decoder import Prompts
from rilbench.ril.distillation import distillation_advantages
from rilbench.ril.policy import PolicyLoss, policy_loss
from rilbench.ril.step import StepSignal, score_step
from rilbench.train.discriminator_texts import Texts
from rilbench.train.metrics import advantage_metrics, as_json, reward_metrics, token_metrics
from rilbench.train.nan_guard import check_finite
from rilbench.train.seeding import seed_everything, seed_of
from rilbench.train.step_batch import StepBatch, write_rollouts
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.freeze import freeze

MAX_GRAD_NORM = 1.0
"""verl's."""

OnStep = Callable[[str, int, int], None]
"""Called with (stage, step, of) after each step."""


class FastRun:
    """Trains a student by a recipe's method.

    Args:
        recipe: the recipe of the product; its hardware counts for nothing.
        student: the checkpoint to start from.
        data: questions and saved responses.
        folder: takes ``metrics.jsonl``, ``rollouts/`` and the files of the stages.
        on_step: shows progress.

    Raises:
        UserError: a setting that this engine does not have.
    """

    def __init__(
        self, recipe: Recipe, student: Path, data: TrainingData, folder: Path, on_step: OnStep
    ) -> None:
        _check(recipe)
        torch.set_num_threads(1)
        seed_everything(recipe.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder, self.on_step = recipe, folder, on_step
        self.step_config = StepConfig.from_recipe(recipe, folder)
        self.policy = Student(student)
        if recipe.policy.freeze:
            freeze(self.policy.model, recipe.policy.freeze)
        self.groups = Groups(recipe, self.step_config, data, self.policy)
        self.teachers: Teachers | None = None
        if recipe.method_spec.uses_teacher_log_probs:
            self.teachers = Teachers(recipe, self.policy.inputs)
        self.cpu_seconds: dict[str, float] = {}

    def run(self) -> None:
        """Train: SFT if the recipe has it, then the loop if the method has one."""
        if self.recipe.sft.steps:
            with self._timed("sft"):
                self.fine_tune()
        if self.recipe.method_spec.is_rl:
            self.train()

    # ---- SFT on the teachers' saved responses

    def fine_tune(self) -> None:
        """Cross-entropy of saved responses, as a mean over the tokens of a batch."""
        sft = self.recipe.sft
        optimizer = self._optimizer(sft.lr)
        examples = self.groups.examples()
        random.Random(seed_of("sft", self.recipe.seed)).shuffle(examples)
        for step in range(sft.steps):
            first = step * sft.batch_size
            chosen = [examples[(first + i) % len(examples)] for i in range(sft.batch_size)]
            asked = list({question.id: question for question, _ in chosen}.values())
            place = {question.id: i for i, question in enumerate(asked)}
            log_probs, mask = self.policy.log_probs(
                self.policy.read(asked),
                torch.tensor([place[question.id] for question, _ in chosen]),
                [self.groups.tokens(response) for _, response in chosen],
            )
            _set_learning_rate(optimizer, _linear(sft.lr, sft.final_lr, step, sft.steps))
            loss = -log_probs.sum() / mask.sum()
            norm = self._update(optimizer, loss)
            tokens = int(mask.sum())
            line = {"step": step + 1, "loss": float(loss.detach()), "grad_norm": norm}
            line |= {"trained_tokens": tokens, "teacher_tokens": tokens}
            check_finite(self.folder, f"sft, step {step + 1}", line)
            _append(self.folder / "sft.jsonl", line)
            self.on_step("sft", step + 1, sft.steps)

    # ---- Algorithm 2

    def train(self) -> None:
        """Pre-train the discriminator, then take the steps of the loop."""
        recipe, method = self.recipe, self.recipe.method_spec
        # The reference and the discriminator start from the student as the loop finds it.
        start = self.folder / "start"
        self.policy.save(start)
        reference = Student(start, self.policy.inputs) if recipe.uses_reference else None
        discriminator = None
        if method.uses_discriminator:
            discriminator = Discriminator(
                start,
                self.policy.tokenizer,
                lr=recipe.discriminator.lr,
                weight_decay=recipe.policy.weight_decay,
                max_grad_norm=MAX_GRAD_NORM,
            )
            with self._timed("discriminator"):
                self.pretrain(discriminator)
        shutil.rmtree(start)
        optimizer = self._optimizer(recipe.policy.lr)
        with self._timed("ril"):
            for step in range(1, recipe.schedule.steps + 1):
                self.take_step(step, optimizer, reference, discriminator)
                self.on_step("ril", step, recipe.schedule.steps)

    def pretrain(self, discriminator: Discriminator) -> None:
        """On saved responses of student and teachers, half and half in each batch."""
        settings = self.recipe.discriminator
        sampler = random.Random(seed_of("pretrain", self.recipe.seed))
        saved = self.groups.saved_texts()
        for step in range(settings.pretrain_steps):
            lr = _linear(
                settings.pretrain_lr, settings.pretrain_final_lr, step, settings.pretrain_steps
            )
            discriminator.set_learning_rate(lr)
            texts = saved.sample(sampler, settings.pretrain_batch_size // 2)
            line = {"step": step + 1, **discriminator.update(texts)}
            check_finite(self.folder, f"discriminator pre-training, step {step + 1}", line)
            _append(self.folder / "discriminator.jsonl", line)
        discriminator.set_learning_rate(settings.lr)

    def take_step(
        self,
        step: int,
        optimizer: torch.optim.Optimizer,
        reference: Student | None,
        discriminator: Discriminator | None,
    ) -> None:
        """One step of Algorithm 2."""
        config, method = self.step_config, self.recipe.method_spec
        questions = self.groups.questions(step)

        # 1. The student samples G responses to each question; G saved ones of its teachers join.
        # Its prompts are read once, with the gradient that the update needs.
        prompts = self.policy.read(questions)
        batch, tokens = self.groups.sample(step, questions, prompts)
        rows = batch.group

        # 2. Update the discriminator by Equation 1, then score the responses with it.
        metrics: dict[str, float] = {}
        logits = None
        if discriminator is not None:
            texts = Texts.of_step(batch)
            for _ in range(config.discriminator_mu):
                metrics |= discriminator.update(texts)
            with torch.no_grad():
                logits = discriminator.logits(texts)
            metrics["discriminator_accuracy"] = texts.accuracy(logits)
            logits = logits[: len(batch)]

        # 3. Rewards and advantages.
        signal = score_step(
            logits,
            batch.answer_reward,
            batch.group,
            batch.is_student,
            method,
            similarity=config.similarity,
            teachers_in_loss=config.teachers_in_loss,
        )

        # 4. Update the policy by Equation 2.
        # In distillation a teacher's log-probabilities take the advantages' place.
        teacher = None
        if self.teachers is not None:
            teacher = self.teachers.log_probs(step, questions, batch, tokens)
        metrics |= self.update_policy(
            questions,
            prompts,
            rows,
            tokens,
            signal.learned_advantage,
            optimizer,
            reference,
            teacher,
        )
        self._record(step, batch, signal, logits, metrics)

    def update_policy(
        self,
        questions: Sequence[Question],
        prompts: Prompts,
        rows: Tensor,
        tokens: Sequence[list[int]],
        advantages: Tensor,
        optimizer: torch.optim.Optimizer,
        reference: Student | None,
        teacher: Tensor | None = None,
    ) -> dict[str, float]:
        """mu updates by Equation 2, over the student's and the teachers' responses alike.

        The prompts are the policy's as it is before the first update.
        """
        config = self.step_config
        ref = None
        if reference is not None:
            with torch.no_grad():
                ref, _ = reference.log_probs(reference.read(questions), rows, tokens)
        old = None
        metrics: dict[str, float] = {}
        for update in range(config.mu):
            if update:
                prompts = self.policy.read(questions)
            result, log_probs = self.objective(prompts, rows, tokens, advantages, old, ref, teacher)
            if config.mu > 1 and old is None:
                old = log_probs.detach()
            norm = self._update(optimizer, result.loss)
            metrics = _policy_metrics(result, norm)
            if teacher is not None:
                kl = (log_probs.detach() - teacher).sum() / result.tokens
                metrics["teacher_kl"] = float(kl)
        return metrics

    def objective(
        self,
        prompts: Prompts,
        rows: Tensor,
        tokens: Sequence[list[int]],
        advantages: Tensor,
        old: Tensor | None,
        ref: Tensor | None,
        teacher: Tensor | None = None,
    ) -> tuple[PolicyLoss, Tensor]:
        """Equation 2 negated, and the log-probabilities (N, T) that it is of.

        Args:
            prompts: the policy's, of Q questions.
            rows: (N,) the question of each response.
            tokens: the responses.
            advantages: (N,).
            old: (N, T) of π_old; None for the policy of this very forward, as at mu = 1.
            ref: (N, T) of the reference; None without one.
            teacher: (N, T) of the teachers in distillation, instead of ``advantages``.
        """
        config = self.step_config
        log_probs, mask = self.policy.log_probs(prompts, rows, tokens)
        if teacher is not None:
            advantages = distillation_advantages(log_probs, teacher)
        result = policy_loss(
            log_probs,
            old,
            ref,
            advantages,
            mask,
            clip_eps=config.clip_eps,
            kl_coef=config.kl_coef if ref is not None else 0.0,
            length_scale=config.length_scale,
            num_responses=len(tokens),
            aggregation=self.recipe.method_spec.aggregation,
        )
        return result, log_probs

    # ---- parts of the above

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add the CPU seconds of the body to a stage."""
        start = time.process_time()
        try:
            yield
        finally:
            spent = time.process_time() - start
            self.cpu_seconds[stage] = self.cpu_seconds.get(stage, 0.0) + spent

    def _optimizer(self, lr: float) -> torch.optim.Optimizer:
        trained = [p for p in self.policy.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=lr, weight_decay=self.recipe.policy.weight_decay)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
        """One optimiser step; returns the gradient's norm before it is clipped."""
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.policy.model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        return float(norm)

    def _record(
        self,
        step: int,
        batch: StepBatch,
        signal: StepSignal,
        logits: Tensor | None,
        metrics: Mapping[str, float],
    ) -> None:
        """Write the step's rollouts and metrics, under the product's names."""
        method = self.recipe.method_spec
        write_rollouts(
            self.folder / "rollouts" / f"step_{step}.jsonl", batch, signal, logits, {}, None
        )
        line = {
            "step": step,
            **reward_metrics(batch, signal, {}, method),
            **advantage_metrics(batch, signal, method),
            **token_metrics(
                batch,
                teachers_in_loss=self.step_config.teachers_in_loss,
                mu=self.step_config.mu,
            ),
            **metrics,
            "judge_calls": len(batch),
        }
        _append(self.folder / "metrics.jsonl", as_json(line))
        numbers = {k: v for k, v in metrics.items() if k in ("policy_loss", "kl", "grad_norm")}
        check_finite(self.folder, f"step {step}", numbers)


def _check(recipe: Recipe) -> None:
    if recipe.policy.mini_batches != 1:
        raise UserError("the fast engine makes one update of a step; leave out policy.mini_batches")
    if recipe.judge.model != "rule":
        raise UserError("the fast engine judges by rules; use judge.model=rule, or engine: verl")
    if recipe.policy.lora_rank or recipe.discriminator_lora_rank:
        raise UserError("the fast engine has no LoRA; leave out lora_rank, or use engine: verl")
    if recipe.reward.extra or recipe.sft.data:
        raise UserError("the fast engine has no reward.extra and no sft.data; use engine: verl")


def _policy_metrics(result: PolicyLoss, norm: float) -> dict[str, float]:
    tokens = max(1, int(result.tokens))
    return {
        "kl": float(result.kl),
        "policy_loss": float(result.loss.detach()),
        "ratio_mean": float(result.ratio_sum) / tokens,
        "ratio_max": float(result.ratio_max),
        "clip_fraction": float(result.clipped) / tokens,
        "grad_norm": norm,
    }


def _linear(first: float, last: float, step: int, steps: int) -> float:
    return first + (last - first) * step / max(1, steps - 1)


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
