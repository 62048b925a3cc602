"""A small FSDP2 training on the CPU in processes of its own, saved as verl saves it.

``sharded_training.py RANK RANKS STEPS FROM OUT PORT``: train ``STEPS`` steps from the checkpoint in
FROM ("": none), save to OUT, and write rank 0's full weights to ``OUT/full.pt``.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def main(rank, ranks, steps, source, out, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.LayerNorm(7), torch.nn.Linear(7, 1)
    )
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    name = f"world_size_{ranks}_rank_{rank}.pt"
    done = 0
    if source:
        load = {"weights_only": False, "map_location": "cpu"}
        model.load_state_dict(torch.load(source / f"model_{name}", **load))
        optimizer.load_state_dict(torch.load(source / f"optim_{name}", **load))
        done = torch.load(source / f"extra_state_{name}", **load)["steps"]
    for step in range(done, done + steps):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        model(batch).square().mean().backward()  # the same rows on every rank: one mean
        optimizer.step()
        optimizer.zero_grad()
    out.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), out / f"model_{name}")
    torch.save(optimizer.state_dict(), out / f"optim_{name}")
    torch.save({"steps": done + steps}, out / f"extra_state_{name}")
    full = {key: value.full_tensor() for key, value in model.state_dict().items()}
    if rank == 0:
        torch.save(full, out / "full.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    rank, ranks, steps, source, out, port = sys.argv[1:]
    main(int(rank), int(ranks), int(steps), Path(source) if source else None, Path(out), port)
