"""The weights that verl's ranks saved, written as an ordinary checkpoint.

verl could write one beside each step, but all of it again in float32, with a ``config.json`` that
says bf16. Here it is written once, when it is needed, in the dtype that the student came in.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig
from verl.utils.transformers_compat import drop_tied_target_keys

from rilbench.checkpoint import WEIGHTS_FILE
from rilbench.train.step_checkpoint import ranks_of

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
"""By their names in safetensors; everything else is written as float32."""


def dtype_of(model: Path) -> torch.dtype:
    """The dtype of most of a checkpoint's weights, from the files and not from what they say."""
    counts: Counter[str] = Counter()
    single = model / WEIGHTS_FILE
    for file in [single] if single.is_file() else sorted(model.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  it is no dict
                part = weights.get_slice(name)
                counts[part.get_dtype()] += int(torch.tensor(part.get_shape()).prod())
    return _DTYPES.get(counts.most_common(1)[0][0], torch.float32)


def write_model(saved: Path, out: Path, dtype: torch.dtype) -> None:
    """Write a folder that plain transformers and vLLM load.

    Args:
        saved: a policy's part of a step: each rank's share of the weights, and ``huggingface/``
            with configuration, tokenizer and processor.
        out: does not exist.
        dtype: of the weights, and of the ``config.json`` beside them.
    """
    shutil.copytree(saved / "huggingface", out)
    ranks = ranks_of(saved)
    # Mapped: the machine's memory holds the weights in `dtype`, not also each rank's float32.
    shares = [
        torch.load(saved / f"model_world_size_{ranks}_rank_{rank}.pt", "cpu", mmap=True)
        for rank in range(ranks)
    ]
    weights = {name: _whole([share[name] for share in shares]).to(dtype) for name in shares[0]}
    config = AutoConfig.from_pretrained(out)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if part is not None:  # Gemma 4 may have no audio
            part.dtype = dtype
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    if (out / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(out)
    drop_tied_target_keys(weights, model, config)
    model.save_pretrained(out, state_dict=weights)


def _whole(shares: Sequence[Any]) -> torch.Tensor:
    """One tensor from the shares of all ranks."""
    first = shares[0]
    if not isinstance(first, DTensor):
        return first  # type: ignore[no-any-return]  # not sharded: every rank has all of it
    (placement,) = first.placements
    local = [share.to_local() for share in shares]
    return torch.cat(local, dim=placement.dim) if isinstance(placement, Shard) else local[0]
