"""A student's weights as the ranks of verl save them."""

import json
import shutil

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForImageTextToText


def save(rank, student, out, ranks):
    """What one rank does: float32 weights, sharded by layer and as a whole."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/group", rank=rank, world_size=ranks
    )
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("fsdp",))
    model = AutoModelForImageTextToText.from_pretrained(student, dtype=torch.float32)
    names = set(model._no_split_modules)
    for module in model.modules():
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    torch.save(model.state_dict(), out / f"model_world_size_{ranks}_rank_{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def save_shares(student, out, ranks):
    """Save all ranks' shares, and the folder ``huggingface`` as verl leaves it."""
    out.mkdir()
    # Forks: they have torch and transformers imported already.
    torch.multiprocessing.start_processes(save, (student, out, ranks), ranks, start_method="fork")
    (out / "group").unlink(missing_ok=True)
    ignore = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json")
    shutil.copytree(student, out / "huggingface", ignore=ignore)
    file = out / "huggingface" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "dtype": "float32"}))  # of the weights that are trained
