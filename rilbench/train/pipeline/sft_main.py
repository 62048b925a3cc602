"""The process that runs verl's SFT trainer: ``python -m ….pipeline.sft_main RUN MODEL``.

One for each device; torchrun starts them if there are several.
"""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from verl.trainer.sft_trainer import SFTTrainer
from verl.utils import tensordict_utils as tu
from verl.utils.device import auto_set_device, get_device_name
from verl.utils.distributed import destroy_global_process_group, initialize_global_process_group
from verl.workers.config import TrainingWorkerConfig
from verl.workers.engine_workers import TrainingWorker
from verl.workers.utils.losses import sft_loss

from rilbench.config import Recipe, read_recipe
from rilbench.config.layouts import suited
from rilbench.logs import configure
from rilbench.train.nan_guard import check_finite
from rilbench.train.pipeline.run_folder import keep_lines
from rilbench.train.verl.sft_config import compose_sft
from rilbench.train.verl.workers import (  # also registers the CPU's engine
    prepare_process,
    set_threads,
)

log = logging.getLogger("rilbench.train.pipeline.sft_main")  # run as __main__


class SFTWorker(TrainingWorker):  # type: ignore[misc]
    """verl's worker, which also records each step's metrics."""

    step = 0
    file: Path
    from_teachers: bool

    def train_batch(self, data: Any) -> Any:
        """One update; its metrics go into ``sft/metrics.jsonl``.

        Raises:
            NotFiniteError: the loss or the gradient is not finite; nothing was saved since.
        """
        tokens = data["loss_mask"].values().sum().to(torch.int64)
        torch.distributed.all_reduce(tokens, group=self.engine.get_data_parallel_group())
        lr = self.engine.optimizer.param_groups[0]["lr"]  # verl reports the next step's
        output = super().train_batch(data)
        self.step += 1
        reported = tu.get(output, "metrics")
        metrics = {name: float(reported[name]) for name in ("loss", "grad_norm")}
        check_finite(self.file.parents[1], f"sft, step {self.step}", metrics)
        if torch.distributed.get_rank() == 0:
            line = {
                "step": self.step,
                **metrics,
                "learning_rate": lr,
                "trained_tokens": int(tokens),
                "teacher_tokens": int(tokens) * self.from_teachers,
            }
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return output


class RecordedSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """verl's SFT trainer with our worker and a linear learning rate, which verl does not have."""

    def __init__(self, config: Any, recipe: Recipe, file: Path) -> None:
        self.recipe, self.file = recipe, file
        super().__init__(config)
        if self.rank == 0 and file.exists():
            keep_lines(file, self.resume_global_step)
        self.training_client.step = self.resume_global_step
        log.info("starting after step %d of %d", self.resume_global_step, recipe.sft.steps)

    def _build_engine(self) -> None:
        """As in verl, with our worker."""
        worker = SFTWorker(
            TrainingWorkerConfig(
                model_type="language_model",
                model_config=self.model_config,
                engine_config=self.engine_config,
                optimizer_config=self.optimizer_config,
                checkpoint_config=self.checkpoint_config,
                profiler_config=self.profiler_config,
            )
        )
        worker.file, worker.from_teachers = self.file, self.recipe.sft_on_teachers
        worker.set_loss_fn(loss_fn=partial(sft_loss, None))
        self.training_client, self.engine = worker, worker.engine

    def _init_engine(self) -> None:
        super()._init_engine()
        sft = self.recipe.sft

        def factor(step: int) -> float:
            """What the first learning rate is multiplied by; the last step has the final one."""
            return 1 + (sft.final_lr / sft.lr - 1) * min(1.0, step / max(1, sft.steps - 1))

        scheduler = torch.optim.lr_scheduler.LambdaLR(self.engine.optimizer, factor)
        self.engine.lr_scheduler = scheduler
        self.engine.checkpoint_manager.lr_scheduler = scheduler  # saved, and loaded by --resume


def run(run_dir: Path, model: str) -> None:
    """Run the SFT stage of a run, from its last saved step."""
    recipe = suited(read_recipe(run_dir / "recipe.yaml"), model)
    config = compose_sft(recipe, run_dir, model)
    auto_set_device(config)
    prepare_process()
    set_threads()
    if get_device_name() != "cpu":
        initialize_global_process_group()
    RecordedSFTTrainer(config, recipe, run_dir / "sft" / "metrics.jsonl").fit()
    destroy_global_process_group()


if __name__ == "__main__":
    configure(verbose=True)  # into logs/sft.log
    run(Path(sys.argv[1]), sys.argv[2])
