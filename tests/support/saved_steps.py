"""A saved step as verl lays it out, with empty files."""

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
