"""Recipe → the configuration of verl's SFT trainer; beside `verl_config`, the only such place.

Source: verl 0.9.1's ``verl/trainer/config/sft_trainer_engine.yaml``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rilbench.config import Recipe
from rilbench.errors import UserError
from rilbench.train.verl.config import (
    FP32,
    LAYOUTS,
    STUDENT_MODEL,
    adapter_files,
    as_overrides,
    engine_memory,
    lora,
    micro_batch,
    picture_file,
)


def sft_overrides(recipe: Recipe, run_dir: Path, model: str) -> list[str]:
    """verl's settings for the SFT stage, as Hydra overrides.

    Raises:
        UserError: ``sft.batch_size`` do not divide among the devices.
    """
    ranks = recipe.hardware.devices
    if recipe.sft.batch_size % ranks:
        raise UserError(
            f"sft.batch_size={recipe.sft.batch_size} do not divide among {ranks} devices"
        )
    folder = run_dir / "sft"
    settings: dict[str, Any] = {
        "data.train_files": folder / "train.parquet",
        "data.train_batch_size": recipe.sft.batch_size,
        "data.custom_cls.path": LAYOUTS,
        "data.custom_cls.name": "SFTDataset",
        "+data.picture_file": picture_file(run_dir),
        "data.use_dynamic_bsz": recipe.policy.micro_batch_tokens > 0,
        "data.max_token_len_per_gpu": recipe.policy.micro_batch_tokens
        or recipe.max_sequence_tokens,
        "data.micro_batch_size_per_gpu": micro_batch(
            recipe.policy.micro_batch_size, recipe.sft.batch_size // ranks
        ),
        "data.max_length": recipe.max_sequence_tokens,
        "data.truncation": "right",  # of the response, as in the loop: the prompt comes first
        "data.num_workers": 0,
        "model._target_": STUDENT_MODEL,
        "model.path": Path(model),
        "model.trust_remote_code": False,
        "engine.strategy": "fsdp2",
        **engine_memory(recipe, "engine", "model"),
        **lora(recipe, recipe.policy.lora_rank, "model", "engine"),
        "optim.lr": recipe.sft.lr,
        "optim.weight_decay": recipe.policy.weight_decay,
        "checkpoint.save_contents": "[model,optimizer,extra]",
        **adapter_files(recipe, "checkpoint"),
        "trainer.total_training_steps": recipe.sft.steps,
        "trainer.total_epochs": 1_000_000,  # steps decide
        "trainer.save_freq": recipe.schedule.save_every,
        "trainer.test_freq": -1,
        # With one, verl deletes it before it writes down which is the newest.
        "trainer.max_ckpt_to_keep": 2,
        "trainer.default_local_dir": folder / "steps",
        "trainer.resume_mode": "auto",
        "trainer.project_name": "rilbench",
        "trainer.experiment_name": Path(run_dir.name),
        "trainer.logger": "[console]",
        "trainer.device": recipe.hardware.device,
        "trainer.n_gpus_per_node": ranks,
    }
    if recipe.hardware.device == "cpu":
        settings |= {
            "engine.model_dtype": "fp32",
            "engine.use_torch_compile": False,
            "+engine.mixed_precision": FP32,
        }
    return as_overrides(settings)


def compose_sft(recipe: Recipe, run_dir: Path, model: str) -> Any:
    """Compose verl's configuration of the SFT trainer."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("sft_trainer_engine", sft_overrides(recipe, run_dir, model))
