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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.judge.rules import is_right
from rilbench.lab.fast.discriminator import Discriminator
from rilbench.lab.fast.prompts import Student
from rilbench.model.decoder import Prompts
from rilbench.model.inputs import teacher_tokens
from rilbench.ril.policy import PolicyLoss, policy_loss
from rilbench.ril.step import StepSignal, score_step
from rilbench.train.metrics import advantage_metrics, as_json, reward_metrics, token_metrics
from rilbench.train.nan_guard import check_finite
from rilbench.train.seeding import noisy_verdict, sample_teacher_responses, seed_everything, seed_of
from rilbench.train.step_batch import StepBatch, write_rollouts
from rilbench.train.step_config import StepConfig
from rilbench.train.verl.freeze import freeze

MAX_GRAD_NORM = 1.0
"""verl's."""

OnStep = Callable[[str, int, int], None]
"""Called with (stage, step, of) after each step."""


@dataclass(frozen=True)
class TrainingData:
    """The questions of a run and the responses that were saved before it."""

    questions: Sequence[Question]
    saved: Mapping[str, Mapping[str, Sequence[str]]]
    """Question id → teacher → its responses."""
    student_saved: Sequence[str]
    """The student's, on which the discriminator is pre-trained."""


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
        self.recipe, self.folder, self.data, self.on_step = recipe, folder, data, on_step
        self.step_config = StepConfig.from_recipe(recipe, folder)
        self.policy = Student(student)
        if recipe.policy.freeze:
            freeze(self.policy.model, recipe.policy.freeze)
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
        examples = [
            (question, response)
            for question in self.data.questions
            for responses in self._usable(question).values()
            for response in responses
        ]
        random.Random(seed_of("sft", self.recipe.seed)).shuffle(examples)
        for step in range(sft.steps):
            first = step * sft.batch_size
            chosen = [examples[(first + i) % len(examples)] for i in range(sft.batch_size)]
            asked = list({question.id: question for question, _ in chosen}.values())
            place = {question.id: i for i, question in enumerate(asked)}
            log_probs, mask = self.policy.log_probs(
                self.policy.read(asked),
                torch.tensor([place[question.id] for question, _ in chosen]),
                [self._tokens(response) for _, response in chosen],
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
        reference = Student(start, self.policy.inputs) if recipe.policy.kl_coef else None
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
        """Equation 1 on saved responses of student and teachers, half and half in each batch."""
        settings = self.recipe.discriminator
        sampler = random.Random(seed_of("pretrain", self.recipe.seed))
        student = list(self.data.student_saved)
        teachers = [
            response
            for question in self.data.questions
            for responses in self._usable(question).values()
            for response in responses
        ]
        half = settings.pretrain_batch_size // 2
        is_student = torch.arange(2 * half) < half
        for step in range(settings.pretrain_steps):
            lr = _linear(
                settings.pretrain_lr, settings.pretrain_final_lr, step, settings.pretrain_steps
            )
            discriminator.set_learning_rate(lr)
            texts = sampler.choices(student, k=half) + sampler.choices(teachers, k=half)
            line = {"step": step + 1, **discriminator.update(texts, is_student)}
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
        questions = self._questions(step)

        # 1. The student samples G responses to each question; G saved ones of its teachers join.
        # Its prompts are read once, with the gradient that the update needs.
        prompts = self.policy.read(questions)
        batch, tokens = self.sample(step, questions, prompts)
        rows = batch.group

        # 2. Update the discriminator by Equation 1, then score the responses with it.
        metrics: dict[str, float] = {}
        logits = None
        if discriminator is not None:
            for _ in range(config.discriminator_mu):
                metrics |= discriminator.update(batch.response, batch.is_student)
            with torch.no_grad():
                logits = discriminator.logits(batch.response)
            right = (logits >= 0) == batch.is_student
            metrics["discriminator_accuracy"] = right.float().mean().item()

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
        metrics |= self.update_policy(
            questions, prompts, rows, tokens, signal.learned_advantage, optimizer, reference
        )
        self._record(step, batch, signal, logits, metrics)

    def sample(
        self, step: int, questions: Sequence[Question], prompts: Prompts
    ) -> tuple[StepBatch, list[list[int]]]:
        """All groups of a step, judged; and the tokens of their responses."""
        config = self.step_config
        seeds = [
            [
                seed_of("sample", config.seed, step, question.id, session) % 2**31
                for session in range(config.num_student_responses)
            ]
            for question in questions
        ]
        sampled = self.policy.sample(
            questions, seeds, self.recipe.sampling, self.recipe.data.max_response_tokens, prompts
        )
        tokens: list[list[int]] = []
        source: list[str] = []
        for question, own in zip(questions, sampled, strict=True):
            saved: list[tuple[str, str]] = []
            if config.num_teacher_responses:
                saved = sample_teacher_responses(
                    self._usable(question),
                    config.num_teacher_responses,
                    config.mix,
                    *(config.seed, step, question.id),
                )
            tokens += own + [self._tokens(response) for _, response in saved]
            source += ["student"] * len(own) + [teacher for teacher, _ in saved]
        size = config.group_responses
        asked = [question for question in questions for _ in range(size)]
        texts = self.policy.decode(tokens)
        exact, verdicts = self._judge(asked, texts)
        image_tokens = (prompts.input_ids == self.policy.image_token).sum(1).repeat_interleave(size)
        batch = StepBatch(
            session=[i % size for i in range(len(tokens))],
            question_id=[question.id for question in asked],
            source=source,
            response=texts,
            group=torch.arange(len(questions)).repeat_interleave(size),
            is_student=torch.tensor([name == "student" for name in source]),
            answer_reward=torch.tensor(verdicts),
            answer_reward_before_noise=torch.tensor(exact),
            tokens=[len(each) for each in tokens],
            finished=[each[-1] == self.policy.end for each in tokens],
            image_tokens=image_tokens.tolist(),
            question=[question.question for question in asked],
            reference=[question.answer for question in asked],
        )
        return batch, tokens

    def update_policy(
        self,
        questions: Sequence[Question],
        prompts: Prompts,
        rows: Tensor,
        tokens: Sequence[list[int]],
        advantages: Tensor,
        optimizer: torch.optim.Optimizer,
        reference: Student | None,
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
            result, log_probs = self.objective(prompts, rows, tokens, advantages, old, ref)
            if config.mu > 1 and old is None:
                old = log_probs.detach()
            norm = self._update(optimizer, result.loss)
            metrics = _policy_metrics(result, norm)
        return metrics

    def objective(
        self,
        prompts: Prompts,
        rows: Tensor,
        tokens: Sequence[list[int]],
        advantages: Tensor,
        old: Tensor | None,
        ref: Tensor | None,
    ) -> tuple[PolicyLoss, Tensor]:
        """Equation 2 negated, and the log-probabilities (N, T) that it is of.

        Args:
            prompts: the policy's, of Q questions.
            rows: (N,) the question of each response.
            tokens: the responses.
            advantages: (N,).
            old: (N, T) of π_old; None for the policy of this very forward, as at mu = 1.
            ref: (N, T) of the reference; None without one.
        """
        config = self.step_config
        log_probs, mask = self.policy.log_probs(prompts, rows, tokens)
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

    def _questions(self, step: int) -> list[Question]:
        """The questions of a step: every one comes once before any comes again."""
        size, number = self.recipe.schedule.prompts_per_step, len(self.data.questions)
        chosen = []
        for place in range((step - 1) * size, step * size):
            order = _order(number, seed_of("order", self.recipe.seed, place // number))
            chosen.append(self.data.questions[order[place % number]])
        return chosen

    def _usable(self, question: Question) -> dict[str, Sequence[str]]:
        """Each teacher's saved responses that the recipe may use."""
        by_teacher = self.data.saved[question.id]
        most = self.recipe.max_saved_responses
        return {name: by_teacher[name][:most] for name in self.recipe.teachers.names}

    def _judge(
        self, asked: Sequence[Question], texts: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        """The verdict on each response: exact, and with the recipe's simulated errors."""
        config = self.step_config
        exact, noisy = [], []
        for question, text in zip(asked, texts, strict=True):
            exact.append(float(_is_right(question.answer, text)))
            rates = (config.false_positive_rate, config.false_negative_rate)
            noisy.append(noisy_verdict(exact[-1], *rates, config.seed, question.id, text))
        return exact, noisy

    def _tokens(self, response: str) -> list[int]:
        return teacher_tokens(self.policy.tokenizer, response, self.recipe.data.max_response_tokens)

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
        write_rollouts(
            self.folder / "rollouts" / f"step_{step}.jsonl", batch, signal, logits, {}, None
        )
        line = {
            "step": step,
            **reward_metrics(batch, signal, {}),
            **advantage_metrics(batch, signal),
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


@lru_cache(maxsize=4)
def _order(number: int, seed: int) -> list[int]:
    order = list(range(number))
    random.Random(seed).shuffle(order)
    return order


@lru_cache(maxsize=100_000)
def _is_right(reference: str, response: str) -> bool:
    return is_right(reference, response)


def _linear(first: float, last: float, step: int, steps: int) -> float:
    return first + (last - first) * step / max(1, steps - 1)


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
