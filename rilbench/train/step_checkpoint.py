"""A saved step on disk: is it whole, and how many ranks wrote it?

verl writes a step's files one after the other: each rank its share of the policy and of its
optimiser (``actor/``), then of the discriminator and its optimiser (``critic/``), then the place in
the data (``data.pt``). The trainer gives the folder its name when all of it is there; what is found
here is checked all the same, since a folder may have been copied, or written to a disk that one of
the nodes does not share.
"""

from __future__ import annotations

import re
from pathlib import Path

PARTS = ("model", "optim", "extra_state")
"""What each rank keeps of a model: weights, optimiser; scheduler and random state."""

_RANK = re.compile(r"(model|optim|extra_state)_world_size_(\d+)_rank_(\d+)\.pt")


def steps_in(folder: Path, *, discriminator: bool) -> dict[int, Path]:
    """The whole steps below a run's ``steps``, by number, in order."""
    found = {
        int(path.name.rsplit("_", 1)[1]): path
        for path in folder.glob("global_step_*")
        if not missing_part(path, discriminator=discriminator)
    }
    return dict(sorted(found.items()))


def missing_part(step: Path, *, discriminator: bool) -> str:
    """The first part that a step's folder lacks, relative to it; empty where it is whole."""
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
    """How many ranks wrote a model's part of a step; 0 where nothing is there."""
    names = [_RANK.fullmatch(path.name) for path in model.glob("*.pt")]
    return max((int(found[2]) for found in names if found), default=0)
