"""Memory of an update and of a forward on one of eight GPUs, tracked without a GPU.

The paper's students with their real architectures and their discriminators, wrapped by verl's own
FSDP2 code, run under fake tensors and a fake process group of eight ranks, while torch's FSDP2
memory tracker counts every storage. It is one micro-batch of the profile ``1x8-80gb`` with the rows
that `rilbench plan` assumes, for the second update, when AdamW's moments exist. What needs a GPU is
replaced by what it holds: FlashAttention and its cross-entropy by functions that keep and allocate
the same tensors. Not seen: the allocator's fragments, NCCL's buffers, torch.compile. Written to
``results/bench/plan-memory.json``, each with the estimate of `rilbench plan`. With ``--lora``: the
3B student and its discriminator with adapters on one GPU of 24 GB, in ``plan-memory-lora.json``.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import peft
import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AttentionInterface, AutoConfig, AutoModelForImageTextToText
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen
from verl.utils.fsdp_utils import apply_fsdp2
from verl.utils.torch_functional import entropy_from_logits_with_chunking

from rilbench.config import load_recipe
from rilbench.config.lora_targets import layers_to_adapt
from rilbench.config.schema import Recipe
from rilbench.plan.architecture import find_architecture
from rilbench.plan.assumptions import assume
from rilbench.plan.memory import GIB, plan_memory
from rilbench.resources import resource
from rilbench.train.verl.discriminator_model import Discriminator
from rilbench.train.verl.lora import adapt, linear_layers

RESULTS = Path(__file__).parents[2] / "results" / "bench"


@dataclass(frozen=True)
class Bench:
    """What is tracked, on which hardware, and where it is written."""

    file: str
    hardware: str
    students: tuple[str, ...]
    settings: tuple[str, ...] = ()

    def recipe(self, student: str) -> Recipe:
        """The recipe of a student on this hardware."""
        return load_recipe("both", student, overrides=self.settings, hardware=self.hardware)


FULL = Bench(
    "plan-memory.json",
    "1x8-80gb",
    ("qwen2.5-vl-3b", "qwen2.5-vl-7b", "internvl3-1b", "internvl3-2b", "internvl3-8b"),
)
LORA = Bench("plan-memory-lora.json", "1-gpu-24gb", ("qwen2.5-vl-3b",), ("policy.lora_rank=32",))


class Flash(torch.autograd.Function):
    """FlashAttention's tensors: its inputs, the result and a float32 for each head and token."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return a result (rows, tokens, heads, width) in the queries' type."""
        out = torch.empty_like(query)
        sums = torch.empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Return three gradients; the queries' is added up in float32."""
        query, key, value, *_ = ctx.saved_tensors
        added = torch.empty_like(query, dtype=torch.float32)
        return added.to(query.dtype), torch.empty_like(key), torch.empty_like(value)


class CrossEntropy(torch.autograd.Function):
    """FlashAttention's cross-entropy: keeps the logits, and makes their gradient in their type."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a loss for each token, in float32."""
        loss = torch.empty(logits.shape[0], dtype=torch.float32)
        ctx.save_for_backward(logits, torch.empty_like(loss), labels)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the logits' gradient."""
        return torch.empty_like(ctx.saved_tensors[0]), None


def flash(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: its own copies of heads beside tokens."""
    query, key, value = (each.transpose(1, 2).contiguous() for each in (query, key, value))
    return Flash.apply(query, key, value), None


_layer_norm = nn.functional.layer_norm


def layer_norm(*inputs: Any, **more: Any) -> Tensor:
    """Autocast of a CPU leaves LayerNorm in bf16; that of CUDA computes it in float32."""
    return _layer_norm(
        *(each.float() if isinstance(each, Tensor) else each for each in inputs), **more
    )


def estimates(recipe: Recipe) -> dict[str, dict[str, float]]:
    """What the plan says today of a student: GiB of policy and discriminator, by phase."""
    student = recipe.student.name
    memory = plan_memory(recipe, find_architecture("", student), assume(recipe))
    assert memory.discriminator is not None
    found = {"policy": memory.policy, "discriminator": memory.discriminator}
    return {
        name: {
            "update": round(trained.at_work / GIB, 3),
            "forward": round(trained.forward / GIB, 3),
        }
        for name, trained in found.items()
    }


@dataclass(frozen=True)
class Size:
    """A student and the micro-batches that the plan counts."""

    config: dict[str, Any]
    text: int  # tokens of the policy's micro-batch
    images: list[int]  # image tokens of its rows
    alone: int  # tokens of the discriminator's

    @classmethod
    def of(cls, recipe: Recipe) -> Size:
        """The rows of mean length that fill a micro-batch of the profile."""
        assumed = assume(recipe)
        file = resource(f"recipes/models/{recipe.student.name}.json")
        kept = json.loads(file.read_text(encoding="utf-8"))
        tokens = recipe.policy.micro_batch_tokens
        rows = tokens // (assumed.prompt_tokens + assumed.response_tokens)
        pictures = [assumed.image_tokens] * rows
        return cls(kept["config"], tokens, pictures, recipe.discriminator.micro_batch_tokens)


def build(size: Size, dtype: torch.dtype) -> Any:
    """The student as verl loads it, with fake weights."""
    fields = {key: value for key, value in size.config.items() if key != "model_type"}
    config = AutoConfig.for_model(size.config["model_type"], **fields)
    return AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")


def with_adapter(model: Any, head: nn.Module, recipe: Recipe, rank: int) -> Any:
    """As the engines adapt it; the discriminator's new head trains, the language head does not."""
    if not rank:
        return model
    layers = layers_to_adapt(linear_layers(model, head), recipe.policy.lora_targets)
    # peft moves an adapter to its base's device: it is there, and fake tensors refuse.
    with mock.patch.object(nn.Module, "to", lambda module, *_, **__: module):
        adapted = adapt(model, layers, rank=rank, alpha=recipe.policy.lora_alpha, seed=recipe.seed)
    if isinstance(model, Discriminator):
        head.requires_grad_(True)
    return adapted


def shard(model: Any, mesh: DeviceMesh) -> Any:
    """Wrapped as verl's engine does it."""
    options = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=True
        ),
        "offload_policy": None,
        "reshard_after_forward": True,
    }
    apply_fsdp2(model, options, {})
    return model.train()


def picture_arguments(model: Any, size: Size) -> dict[str, Any]:
    """The pictures of a micro-batch; what the models read out of real numbers is put in place."""
    body, internvl = model.model, size.config["model_type"] == "internvl"

    def placeholders(ids: Tensor, inputs_embeds: Tensor, **_: Any) -> Any:
        mask = (ids == 1).unsqueeze(-1).expand_as(inputs_embeds)
        return mask if internvl else (mask, mask)  # of images; and of videos

    def image_features(pixels: Tensor, grid: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=[body.visual(pixels, grid_thw=grid).pooler_output])

    body.get_placeholder_mask = placeholders
    if internvl:
        height, width = size.config["vision_config"]["image_size"]
        tokens = (height // 14 // 2) * (width // 14 // 2)  # of a tile
        return {"pixel_values": torch.randn(sum(size.images) // tokens, 3, height, width)}
    body.get_image_features = image_features
    return {
        "pixel_values": torch.randn(4 * sum(size.images), 3 * 2 * 14 * 14),
        "image_grid_thw": torch.ones(len(size.images), 3, dtype=torch.long),
    }


@contextlib.contextmanager
def given_grids(model: Any, size: Size, fake: FakeTensorMode) -> Iterator[None]:
    """What Qwen2.5-VL's tower works out of its pictures' sizes, from real numbers."""
    if size.config["model_type"] == "internvl":
        yield
        return
    tower = model.model.visual
    high = [next(n for n in range(math.isqrt(t), 0, -1) if t % n == 0) for t in size.images]
    grid = torch.tensor([[1, 2 * h, 2 * t // h] for h, t in zip(high, size.images, strict=True)])
    window = {"window_size": tower.window_size, "patch_size": tower.patch_size}
    merge = tower.spatial_merge_size
    found = {
        "get_vision_position_ids": qwen.get_vision_position_ids(grid, merge),
        "get_vision_cu_seqlens": qwen.get_vision_cu_seqlens(grid),
        "get_vision_window_index": qwen.get_vision_window_index(
            grid, spatial_merge_size=merge, **window
        ),
    }
    with contextlib.ExitStack() as stack:
        for name, value in found.items():
            made = torch.utils._pytree.tree_map_only(Tensor, fake.from_tensor, value)
            stack.enter_context(mock.patch.object(qwen, name, lambda *_, made=made, **__: made))
        yield


def policy_loss(model: Any, inputs: dict[str, Tensor], *, train: bool) -> Tensor:
    """What verl's engine keeps of a forward: log-probabilities, and in training the entropy."""
    logits = model(**inputs, use_cache=False).logits.squeeze(0)
    entropy = None
    if train:
        entropy = torch.utils.checkpoint.checkpoint(
            entropy_from_logits_with_chunking, logits, use_reentrant=True
        )
    log_prob = CrossEntropy.apply(logits, inputs["input_ids"].squeeze(0))
    del logits, entropy
    return log_prob.mean()


def discriminator_loss(model: Any, inputs: dict[str, Tensor], *, train: bool) -> Tensor:
    """The logits of all tokens, of which the last of each row count."""
    return model(**inputs).logits.float().mean()


def tracked(
    model: Any, loss: Callable[..., Tensor], inputs: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Peaks in GiB by kind, of an update with AdamW's moments and of a forward without gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    for parameter in trained:  # as after another micro-batch, and an earlier update
        parameter.grad = torch.zeros_like(parameter)
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        optimiser.state[parameter] = moments
    found = {}
    for name in ("update", "forward"):
        tracker = FSDPMemTracker(model, optimiser)
        tracker.track_inputs(tuple(inputs.values()))
        train = name != "forward"
        autocast = torch.autocast("cpu", dtype=torch.bfloat16)
        with tracker, torch.set_grad_enabled(train):
            with autocast:
                value = loss(model, inputs, train=train)
            if train:
                value.backward()
        del value
        optimiser.zero_grad()
        (peak,) = tracker.get_tracker_snapshot("peak").values()
        found[name] = {kind: round(size / GIB, 3) for kind, size in peak.items() if size}
    return found


def checkpointing(model: Any) -> Any:
    """As verl sets a model up before it is adapted and sharded."""
    model.config._attn_implementation = "flash_attention_2"  # set later: it is not installed here
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def measure(recipe: Recipe, mesh: DeviceMesh) -> dict[str, Any]:
    """A student's memory and its discriminator's, with the plan's."""
    size, rank = Size.of(recipe), recipe.policy.lora_rank
    dtype = torch.bfloat16 if rank else torch.float32
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = checkpointing(build(size, dtype))
        positions = torch.zeros(3, 1, size.text, dtype=torch.long)
        if size.config["model_type"] == "internvl":
            positions = positions[0]
        inputs = {"input_ids": torch.zeros(1, size.text, dtype=torch.long)}
        inputs |= {"position_ids": positions, **picture_arguments(model, size)}
        adapted = with_adapter(model, model.lm_head, recipe, rank)
    with given_grids(model, size, fake), fake:
        policy = tracked(shard(adapted, mesh), policy_loss, inputs)
    with fake:
        model = checkpointing(Discriminator(build(size, dtype).get_decoder()))
        ids = torch.zeros(1, size.alone, dtype=torch.long)
        inputs = {"input_ids": ids, "position_ids": torch.zeros_like(ids)}
        adapted = with_adapter(model, model.score, recipe, rank)
        discriminator = tracked(shard(adapted, mesh), discriminator_loss, inputs)
    planned = estimates(recipe)
    return {
        model: {
            phase: {"gib": kinds.pop("Total"), "plan_gib": planned[model][phase], "kinds": kinds}
            for phase, kinds in found.items()
        }
        for model, found in (("policy", policy), ("discriminator", discriminator))
    }


def main(bench: Bench, students: Sequence[str]) -> None:
    """Track the students, all or those that are named, and write the file."""
    warnings.filterwarnings("ignore")  # of packages that verl looks for
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29655")  # asked for, and not used
    ranks = bench.recipe(bench.students[0]).hardware.ranks
    torch.distributed.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    AttentionInterface.register("flash_attention_2", flash)
    nn.functional.layer_norm = layer_norm  # type: ignore[assignment]
    mesh, out = init_device_mesh("cpu", (ranks,)), RESULTS / bench.file
    for student in students or bench.students:
        recipe = bench.recipe(student)
        found = measure(recipe, mesh)
        document = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        tracked_before = {**document.get("students", {}), student: found}
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        document = {"command": "make bench-plan", "hardware": bench.hardware, **versions}
        if recipe.policy.lora_rank:
            document |= {"settings": bench.settings, "peft": peft.__version__}
        document["students"] = {
            name: tracked_before[name] for name in bench.students if name in tracked_before
        }
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        sys.stdout.write(f"{student}: {summary(found)}\n")
        sys.stdout.flush()


def summary(found: dict[str, Any]) -> str:
    """One line: tracked and planned GiB of each phase."""
    return ", ".join(
        f"{model} {phase} {size['gib']:.1f} (plan {size['plan_gib']:.1f})"
        for model, phases in found.items()
        for phase, size in phases.items()
    )


if __name__ == "__main__":
    named = sys.argv[1:]
    if named[:1] == ["--lora"]:
        main(LORA, named[1:])
    else:
        main(FULL, named)
