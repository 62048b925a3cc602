"""The discriminator's side of the game: pre-training, updates by Equation 1, verdicts."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from tensordict import TensorDict
from tensordict.tensorclass import NonTensorData
from verl.utils import tensordict_utils as tu
from verl.utils.metric import reduce_metrics

from rilbench.train.batch import StepBatch, discriminator_rows
from rilbench.train.losses import discriminator_step, last_logit
from rilbench.train.nan_guard import check_finite
from rilbench.train.seeding import seed_of


class DiscriminatorTrainer:
    """Drives the discriminator's worker group.

    Args:
        workers: verl's worker group in the critic's slot.
        tokenizer: the student's.
        ril: the trainer's settings, see `rilbench.train.verl.config.trainer_part`.
    """

    def __init__(self, workers: Any, tokenizer: Any, ril: Any) -> None:
        self.workers, self.tokenizer, self.ril = workers, tokenizer, ril
        self.run_dir = Path(ril.run_dir)
        workers.set_loss_fn(discriminator_step)

    def begin(self) -> None:
        """Pre-train it, or take the pre-trained one; with no steps it stays as it was built."""
        folder = self.run_dir / "discriminator"
        if (folder / "done").exists():
            self.workers.load_checkpoint(str(folder / "state"))
        elif self.ril.pretrain_steps:
            self._pretrain(folder)

    def play(self, rows: StepBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Update on a step's rows, then judge them with what came of it.

        Returns:
            The new logits (N,), and the step's figures.
        """
        # By length, so that a micro-batch pads little.
        order = sorted(range(len(rows)), key=lambda i: (len(rows.text[i]), i))
        data = discriminator_rows(self.tokenizer, [rows.text[i] for i in order], rows.own[order])
        figures = {"discriminator_weights_before": self.workers.weights_digest()[0]}
        if self.ril.discriminator_updates:
            figures |= self._update(data, epochs=self.ril.discriminator_updates)
        logits = torch.empty(len(rows))
        logits[order] = self._logits(data)
        right = (logits >= 0) == rows.own
        figures |= {
            "discriminator_accuracy": right.float().mean().item(),
            "discriminator_weights_scoring": self.workers.weights_digest()[0],
        }
        return logits, figures

    def _update(self, data: TensorDict, epochs: int = 1) -> dict[str, float]:
        rows = data.clone(recurse=False)
        n = len(rows)
        tu.assign_non_tensor(
            rows, global_batch_size=n, mini_batch_size=n, epochs=epochs, seed=0, temperature=1.0
        )
        rows["dataloader_kwargs"] = NonTensorData({"shuffle": False})
        output = self.workers.train_mini_batch(rows).get()
        found = reduce_metrics(dict(tu.get(output, "metrics")))
        return {
            "discriminator_loss": float(found["loss_d"]),
            "discriminator_accuracy_before": float(found["accuracy_before"]),
            "discriminator_grad_norm": float(found["grad_norm"]),
        }

    def _logits(self, data: TensorDict) -> torch.Tensor:
        rows = data.clone(recurse=False)
        tu.assign_non_tensor(rows, compute_loss=False, temperature=1.0)
        return last_logit(self.workers.infer_batch(rows).get()["values"])

    def _pretrain(self, folder: Path) -> None:
        """Equation 1 on saved responses of student and teachers, in balanced batches."""
        log = self.run_dir / "discriminator.jsonl"
        log.touch()  # says that pre-training has begun
        table = pq.read_table(self.run_dir / "data" / "discriminator.parquet").to_pylist()
        sides = {own: [r["response"] for r in table if r["own"] == own] for own in (True, False)}
        draw = random.Random(seed_of("pretrain", self.ril.seed))
        steps, first, last = (
            self.ril.pretrain_steps,
            self.ril.pretrain_lr,
            self.ril.pretrain_final_lr,
        )
        half = self.ril.pretrain_batch_size // 2
        for step in range(steps):
            texts = draw.choices(sides[True], k=half) + draw.choices(sides[False], k=half)
            own = torch.arange(2 * half) < half
            rate = first + (last - first) * step / max(1, steps - 1)
            self.workers.set_learning_rate(rate)
            figures = self._update(discriminator_rows(self.tokenizer, texts, own))
            check_finite(self.run_dir, f"discriminator pre-training, step {step + 1}", figures)
            line = {"step": step + 1, "of": steps, "rate": rate, **figures}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        self.workers.save_checkpoint(str(folder / "state"), None, 0)
        (folder / "done").write_text("", encoding="utf-8")
