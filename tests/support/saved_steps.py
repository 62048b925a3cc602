"""A saved step as verl lays it out, with empty files, or with a model's weights."""

import shutil
from pathlib import Path

from rilbench.train.step_checkpoint import PARTS


def save_step(steps: Path, number: int, *, ranks: int = 1, discriminator: bool = True) -> Path:
    """Make ``steps/global_step_N``, whole, and return it."""
    step = steps / f"global_step_{number}"
    for model in ("actor", "critic") if discriminator else ("actor",):
        (step / model / "huggingface").mkdir(parents=True)
        (step / model / "huggingface" / "config.json").touch()
        for part in PARTS:
            for rank in range(ranks):
                (step / model / f"{part}_world_size_{ranks}_rank_{rank}.pt").touch()
    (step / "data.pt").touch()
    return step


def save_weights(step: Path, model: Path) -> None:
    """Put a model into a step that one rank saved."""
    import torch
    from transformers import AutoModelForImageTextToText

    actor = step / "actor"
    shutil.copytree(model, actor / "huggingface", dirs_exist_ok=True)
    (actor / "huggingface" / "model.safetensors").unlink()
    weights = AutoModelForImageTextToText.from_pretrained(model).state_dict()
    torch.save(weights, actor / "model_world_size_1_rank_0.pt")
