"""The discriminator's training: pre-training, one update a step, and scoring.

By Equation 1; or, for GAD, by Bradley-Terry on pairs of responses to one question.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorData
from verl.utils import tensordict_utils as tu
from verl.utils.metric import reduce_metrics

from rilbench.model.inputs import cut_response
from rilbench.ril.discriminator import (
    STUDENT_LABEL,
    TEACHER_LABEL,
    bradley_terry_gradient,
    bradley_terry_loss,
    discriminator_tokens,
)
from rilbench.train.batch import balanced_order, nested
from rilbench.train.discriminator_texts import SavedTexts, Texts
from rilbench.train.losses import bradley_terry_loss_fn, discriminator_loss_fn, last_logit
from rilbench.train.nan_guard import check_finite
from rilbench.train.seeding import seed_of
from rilbench.train.step_batch import StepBatch
from rilbench.train.step_config import StepConfig


class DiscriminatorTrainer:
    """Trains the discriminator and scores responses with it.

    Args:
        workers: verl's worker group in the critic's slot.
        tokenizer: the student's.
        step: the step's settings.
    """

    def __init__(self, workers: Any, tokenizer: Any, step: StepConfig) -> None:
        self.workers, self.tokenizer, self.step = workers, tokenizer, step
        self.run_dir = Path(step.run_dir)
        self.paired = step.method_spec.pairs_with_teachers
        workers.set_loss_fn(bradley_terry_loss_fn if self.paired else discriminator_loss_fn)

    def pretrain_or_load(self) -> None:
        """Pre-train it, or load the pre-trained one; with 0 steps it stays as it was built."""
        folder = self.run_dir / "discriminator"
        if (folder / "done").exists():
            self.workers.load_checkpoint(str(folder / "state"))
        elif self.step.pretrain_steps:
            self._pretrain(folder)

    def update_and_score(self, responses: StepBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Update on a step's responses, then score them with the new weights.

        By Equation 1; or by Bradley-Terry, on each response and the teacher's that is paired
        with it, which is not scored.

        Returns:
            The new logits (N,), and the step's metrics.
        """
        texts = Texts.of_step(responses)
        rows = self._rows(texts)
        metrics = {"discriminator_weights_before": sum(self.workers.weights_digest())}
        if self.step.discriminator_mu:
            metrics |= self._update(rows, epochs=self.step.discriminator_mu)
        logits = self._score(rows)
        metrics |= {
            "discriminator_accuracy": texts.accuracy(logits),
            "discriminator_weights_scoring": sum(self.workers.weights_digest()),
        }
        return logits[: len(responses)], metrics

    def _rows(self, texts: Texts) -> Rows:
        """Rows with as much work for each rank, and the row of each response.

        Where prompts are shared, whose engine takes any number of rows, equal responses of one side
        are one row with their number as its weight; rows of weight 0 let them divide among ranks.
        """
        merged = bool(self.step.rows_together)
        keys = [
            (text, question, student, 0 if merged else i)
            for i, (text, question, student) in enumerate(
                zip(texts.responses, texts.questions, texts.is_student.tolist(), strict=True)
            )
        ]
        counts = Counter(keys)
        fill = -len(counts) % self.workers.world_size
        rows = [*counts, *keys[:1] * fill]
        batch = discriminator_batch(
            self.tokenizer,
            [row[0] for row in rows],
            torch.tensor([row[2] for row in rows]),
            [row[1] for row in rows],
        )
        batch["weight"] = torch.tensor([*counts.values(), *[0] * fill]).float()
        order = balanced_order(
            batch["input_ids"].offsets().diff().tolist(), self.workers.world_size
        )
        row_of = {rows[i]: row for row, i in enumerate(order) if i < len(counts)}
        places = torch.tensor([row_of[key] for key in keys])
        return Rows(tu.index_select_tensor_dict(batch, order), places)

    def _update(self, rows: Rows, epochs: int = 1) -> dict[str, float]:
        if self.paired:
            return self._update_on_pairs(rows, epochs)
        reduced = self._train(rows.data, int(rows.data["weight"].sum()), epochs)
        return {
            "discriminator_loss": float(reduced["loss_d"]),
            "discriminator_accuracy_before": float(reduced["accuracy_before"]),
            "discriminator_grad_norm": float(reduced["grad_norm"]),
        }

    def _update_on_pairs(self, rows: Rows, epochs: int) -> dict[str, float]:
        """By Bradley-Terry: score all, then give each row the loss's gradient by its logit."""
        metrics: dict[str, float] = {}
        for _ in range(epochs):
            student, teacher = self._score(rows).chunk(2)
            data = rows.data.clone(recurse=False)
            gradient = torch.cat(bradley_terry_gradient(student, teacher))
            data["weight"] = torch.zeros(len(data)).index_add_(0, rows.places, gradient)
            reduced = self._train(data, len(data), 1)
            metrics = {
                "discriminator_loss": float(bradley_terry_loss(student, teacher)),
                "discriminator_accuracy_before": (teacher < student).float().mean().item(),
                "discriminator_grad_norm": float(reduced["grad_norm"]),
            }
        return metrics

    def _train(self, data: TensorDict, size: int, epochs: int) -> dict[str, Any]:
        """Take optimiser steps on all rows at once; ``size`` is what a loss divides by."""
        batch = data.clone(recurse=False)
        tu.assign_non_tensor(
            batch,
            global_batch_size=size,
            mini_batch_size=len(batch),
            epochs=epochs,
            seed=0,
            temperature=1.0,
        )
        batch["dataloader_kwargs"] = NonTensorData({"shuffle": False})
        output = self.workers.train_mini_batch(batch).get()
        reduced: dict[str, Any] = reduce_metrics(dict(tu.get(output, "metrics")))
        return reduced

    def _score(self, rows: Rows) -> torch.Tensor:
        """The logits (N,) of all responses."""
        batch = rows.data.clone(recurse=False)
        tu.assign_non_tensor(batch, compute_loss=False, temperature=1.0)
        return last_logit(self.workers.infer_batch(batch).get()["values"])[rows.places]

    def _pretrain(self, folder: Path) -> None:
        """Pre-train on saved responses of student and teachers, half and half in each batch."""
        step_config = self.step
        log = self.run_dir / "discriminator.jsonl"
        log.touch()  # tells the waiting process that pre-training has begun
        sampler = random.Random(seed_of("pretrain", step_config.seed))
        saved = SavedTexts.read(self.run_dir / "data", paired=self.paired)
        first, last = step_config.pretrain_lr, step_config.pretrain_final_lr
        for step in range(step_config.pretrain_steps):
            texts = saved.sample(sampler, step_config.pretrain_batch_size // 2)
            lr = first + (last - first) * step / max(1, step_config.pretrain_steps - 1)
            self.workers.set_learning_rate(lr)
            # No longer than in the loop, where a teacher of another length is cut.
            cut = [
                cut_response(self.tokenizer, response, step_config.max_response_tokens)
                for response in texts.responses
            ]
            metrics = self._update(self._rows(replace(texts, responses=cut)))
            check_finite(self.run_dir, f"discriminator pre-training, step {step + 1}", metrics)
            line = {"step": step + 1, "of": step_config.pretrain_steps, "lr": lr, **metrics}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        self.workers.save_checkpoint(str(folder / "state"), None, 0)
        (folder / "done").write_text("", encoding="utf-8")


@dataclass(frozen=True)
class Rows:
    """What goes through the discriminator, and the row of each response (N,)."""

    data: TensorDict
    places: torch.Tensor


def discriminator_batch(
    tokenizer: Any,
    texts: Sequence[str],
    is_student: torch.Tensor,
    questions: Sequence[str] = (),
) -> TensorDict:
    """What the discriminator reads: text alone in its own prompt, label 1 student and 0 teacher.

    With ``questions``, those that it reads too ("" for none).

    A plain TensorDict for `train_mini_batch` and `infer_batch`; the policy's batch is untouched.
    Each row begins with the same tokens, which are its prompt, if prompts are shared.
    """
    asked = questions or [""] * len(texts)
    ids = [
        torch.tensor(discriminator_tokens(tokenizer, *pair))
        for pair in zip(texts, asked, strict=True)
    ]
    prompt = _common_start(ids)
    return TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": nested([torch.arange(len(i)) for i in ids]),
            "loss_mask": nested([torch.ones_like(i) for i in ids]),
            "prompts": nested([i[:prompt] for i in ids]),
            "responses": nested([i[prompt:] for i in ids]),
            "question": torch.zeros(len(ids), dtype=torch.long),
            "label": torch.where(is_student, STUDENT_LABEL, TEACHER_LABEL).float(),
            "weight": torch.ones(len(ids)),
        },
        batch_size=len(ids),
    )


def _common_start(rows: Sequence[torch.Tensor]) -> int:
    """With how many equal tokens all rows begin; at least one of each is left."""
    first = rows[0]
    common = min(map(len, rows)) - 1
    for row in rows[1:]:
        different = (row[:common] != first[:common]).nonzero()
        common = int(different[0]) if len(different) else common
    return common
