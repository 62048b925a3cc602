"""A saved model for another number of ranks: ``python -m rilbench.train.reshard FOLDER RANKS OUT``.

verl writes each rank's share of weights and optimiser, and reads it on as many ranks only. A share
is a block of rows (``Shard(0)``) of each tensor, in the order of the ranks. So the shares of other
ranks are the same rows, cut elsewhere: nothing is computed or lost, and both optimisers and the
discriminator go on. One rank's share is in memory at a time.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

from rilbench.train.step_checkpoint import PARTS, ranks_of


def reshard_step(step: Path, ranks: int, out: Path) -> None:
    """Write a step's policy, discriminator and place in the data for ``ranks`` ranks to ``out``."""
    for model in ("actor", "critic"):
        if (step / model).is_dir():
            reshard_model(step / model, ranks, out / model)
    shutil.copy(step / "data.pt", out / "data.pt")


def reshard_model(folder: Path, ranks: int, out: Path) -> None:
    """Write one model's weights, optimiser and scheduler for ``ranks`` ranks to ``out``."""
    before = ranks_of(folder)
    out.mkdir(parents=True)
    for part in PARTS:
        # Mapped and not read: only the rows of the share that is being written are touched.
        shares = [
            torch.load(
                folder / f"{part}_world_size_{before}_rank_{rank}.pt",
                map_location="cpu",
                weights_only=False,  # our own files: DTensors, and random states of Python's
                mmap=True,
            )
            for rank in range(before)
        ]
        for rank in range(ranks):
            share = shares[rank % before] if part == "extra_state" else _cut(shares, rank, ranks)
            torch.save(share, out / f"{part}_world_size_{ranks}_rank_{rank}.pt")
    for file in folder.iterdir():
        if file.is_dir():
            shutil.copytree(file, out / file.name, copy_function=shutil.copy)
        elif file.suffix == ".json":
            values = json.loads(file.read_text(encoding="utf-8"))
            values |= {"world_size": ranks} if "world_size" in values else {}
            (out / file.name).write_text(json.dumps(values, indent=4), encoding="utf-8")


def _cut(shares: list[Any], rank: int, ranks: int) -> Any:
    """What ``rank`` of ``ranks`` holds of nested dictionaries and lists of tensors."""
    first = shares[0]
    if isinstance(first, DTensor):
        return _rows(shares, rank, ranks)
    if isinstance(first, Mapping):
        cut: Callable[[Any], Any] = lambda key: _cut([s[key] for s in shares], rank, ranks)  # noqa: E731
        return type(first)((key, cut(key)) for key in first)  # type: ignore[call-arg]
    if isinstance(first, list):
        return [_cut(list(each), rank, ranks) for each in zip(*shares, strict=True)]
    return first


def _rows(shares: list[DTensor], rank: int, ranks: int) -> DTensor:
    """One rank's rows of a tensor; rows are dealt as `torch.chunk` does, as FSDP2 asks."""
    spec = shares[0]._spec
    assert spec.mesh.ndim == 1, spec.mesh
    assert spec.placements == (Shard(0),), spec.placements
    per_rank = -(-spec.shape[0] // ranks)
    first, last = (min(spec.shape[0], per_rank * i) for i in (rank, rank + 1))
    parts, at = [], 0
    for share in shares:
        local = share._local_tensor
        begin, end = max(first - at, 0), min(last - at, len(local))
        if begin < end:
            parts.append(local[begin:end])
        at += len(local)
    rows = torch.cat(parts) if parts else shares[0]._local_tensor[:0].clone()
    mesh = DeviceMesh(
        spec.mesh.device_type,
        torch.arange(ranks),
        mesh_dim_names=spec.mesh.mesh_dim_names,
        _init_backend=False,
        _rank=rank,
    )
    meta = TensorMeta(spec.shape, spec.stride, rows.dtype)
    tensor: Any = DTensor  # its constructor has no types
    cut: DTensor = tensor(rows, DTensorSpec(mesh, (Shard(0),), meta), requires_grad=False)
    return cut


def main(folder: Path, ranks: int, out: Path) -> None:
    """Write a step, or one model (the pretrained discriminator), for ``ranks`` ranks to ``out``."""
    shutil.rmtree(out, ignore_errors=True)
    if (folder / "data.pt").exists():
        reshard_step(folder, ranks, out)
    else:
        reshard_model(folder, ranks, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
