"""A saved step on disk: whether it is complete, and how many ranks wrote it.

verl writes a step's files one after the other: each rank its share of the policy and its optimiser
(``actor/``), then of the discriminator and its optimiser (``critic/``), then the position in the
data (``data.pt``). The trainer names the folder only when it is complete. It is still checked here,
since a folder may have been copied, or written to a disk that one of the nodes does not share.
"""

from __future__ import annotations

import re
from pathlib import Path

PARTS = ("model", "optim", "extra_state")
"""What each rank saves of a model: weights, optimiser; scheduler and random state."""
OLD = ".old-"
"""Before the name of a saved step that is being deleted."""

_RANK = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")


def steps_in(folder: Path, *, discriminator: bool) -> dict[int, Path]:
    """The complete steps in a run's ``steps`` folder, by number, in order."""
    steps = {
        int(path.name.rsplit("_", 1)[1]): path
        for path in folder.glob("global_step_*")
        if not missing_part(path, discriminator=discriminator)
    }
    return dict(sorted(steps.items()))


def missing_part(step: Path, *, discriminator: bool) -> str:
    """The first missing file or folder of a step, relative to it; empty if it is complete."""
    for model in ("actor", "critic") if discriminator else ("actor",):
        ranks = ranks_of(step / model)
        if ranks == 0:
            return model
        for part in PARTS:
            for rank in range(ranks):
                name = f"{part}_world_size_{ranks}_rank_{rank}.pt"
                if not (step / model / name).is_file():
                    return f"{model}/{name}"
    needed = ("actor/huggingface/config.json", "data.pt")
    return next((name for name in needed if not (step / name).is_file()), "")


def ranks_of(model: Path) -> int:
    """How many ranks wrote a model's part of a step; 0 if there is none."""
    matches = [_RANK.fullmatch(path.name) for path in model.glob("*.pt")]
    return max((int(match[2]) for match in matches if match), default=0)
