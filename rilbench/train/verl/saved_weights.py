"""The weights that verl's ranks saved, written as an ordinary checkpoint.

verl could write one beside each step, but all of it again in float32, with a ``config.json`` that
says bf16. Here it is written once, when it is needed, in the dtype that the student came in.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, Shard
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig
from verl.utils.transformers_compat import drop_tied_target_keys

from rilbench.checkpoint import WEIGHTS_FILE
from rilbench.model.bars import no_bars
from rilbench.train.step_checkpoint import ranks_of
from rilbench.train.verl.lora import adapters_of, merge

# A rank's share names the mesh that it was on, which nobody needs to read it.
logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)

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


def published_name(name: str, model_type: str) -> str:
    """A weight's name as published checkpoints have it, and vLLM expects it.

    transformers 5.8 took a level out of SigLIP's vision tower, and reads checkpoints with either.
    """
    tower = "model.vision_tower."
    if model_type not in ("gemma3", "llava_onevision") or not name.startswith(tower):
        return name
    return f"{tower}vision_model.{name.removeprefix(tower).removeprefix('vision_model.')}"


@no_bars()
def write_model(saved: Path, out: Path, dtype: torch.dtype, *, base: Path | None = None) -> None:
    """Write a folder that plain transformers and vLLM load; an adapter is merged.

    Args:
        saved: a policy's part of a step: each rank's share of the weights, and ``huggingface/``
            with configuration, tokenizer and processor.
        out: does not exist.
        dtype: of the weights, and of the ``config.json`` beside them.
        base: the student that an adapter was trained on.
    """
    shutil.copytree(saved / "huggingface", out)
    shares = _shares(saved)
    config = AutoConfig.from_pretrained(out)
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        if part is not None:  # Gemma 4 may have no audio
            part.dtype = dtype
    if lora := _lora_of(saved):
        assert base is not None, "the steps of an adapter lack its base"
        weights = _merged(base, shares, lora, dtype)
    else:
        weights = {name: _whole([share[name] for share in shares]).to(dtype) for name in shares[0]}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    if (out / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(out)
    drop_tied_target_keys(weights, model, config)
    published = {published_name(name, config.model_type): w for name, w in weights.items()}
    model.save_pretrained(out, state_dict=published)


def write_adapter(saved: Path, out: Path, *, base: Path) -> None:
    """Write the adapter of a step as peft does: ``adapter_config.json`` names its base.

    Args:
        saved: as in `write_model`.
        out: does not exist.
        base: the student that the adapter was trained on.
    """
    shares, lora = _shares(saved), _lora_of(saved)
    layers = [name.removesuffix(".weight") for name in adapters_of(shares[0])]
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["lora_alpha"],
        target_modules=layers,
        base_model_name_or_path=str(base.resolve()),
        inference_mode=True,
    )
    config.save_pretrained(str(out))
    weights = {
        name.replace(".default.", "."): _whole([share[name] for share in shares]).contiguous()
        for name in shares[0]
    }
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})


def _shares(saved: Path) -> list[dict[str, Any]]:
    """The ranks' shares of the weights.

    Mapped: memory holds the weights in the dtype that is written, not also each rank's float32.
    """
    ranks = ranks_of(saved)
    return [
        torch.load(saved / f"model_world_size_{ranks}_rank_{rank}.pt", "cpu", mmap=True)
        for rank in range(ranks)
    ]


def _lora_of(saved: Path) -> dict[str, Any]:
    """What verl writes of an adapter beside it; empty where all parameters were trained."""
    file = saved / "lora_train_meta.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found


def _merged(
    base: Path, shares: Sequence[dict[str, Any]], lora: dict[str, Any], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The weights of a student with an adapter added to them."""
    student = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype)
    weights: dict[str, torch.Tensor] = student.state_dict()
    for name, parts in adapters_of(shares[0]).items():
        a, b = (_whole([share[part] for share in shares]) for part in parts)
        weights[name] = merge(weights[name], a, b, lora["lora_alpha"] / lora["r"])
    return weights


def _whole(shares: Sequence[Any]) -> torch.Tensor:
    """One tensor from the shares of all ranks."""
    first = shares[0]
    if not isinstance(first, DTensor):
        return first  # type: ignore[no-any-return]  # not sharded: every rank has all of it
    (placement,) = first.placements
    local = [share.to_local() for share in shares]
    return torch.cat(local, dim=placement.dim) if isinstance(placement, Shard) else local[0]
