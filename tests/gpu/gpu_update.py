"""A policy update and a discriminator update at the sizes of the paper's students, on one GPU.

Weights are random: speed and memory do not depend on their values. What is timed is the arithmetic
of an update as verl does it (FSDP2, float32 weights, bf16 compute, gradient checkpointing, logits
of every token), on one micro-batch of the profile ``1-gpu-80gb`` with the rows that `rilbench plan`
assumes; the plan's estimate of the same is next to it. Not verl itself: it needs more packages
than a borrowed machine has. Written to ``results/bench/gpu.json``, with the machine's name.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_student import Size, build_student
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from rilbench.errors import UserError
from rilbench.plan.compute_cost import discriminator_flops, response_flops
from rilbench.plan.memory import GIB, Trained
from rilbench.ril.discriminator import discriminator_loss
from rilbench.ril.policy import policy_loss
from rilbench.train.verl.discriminator_model import Discriminator
from rilbench.train.verl.shared_prompts import ATTENTION, SharedPrompts

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "gpu.json"
STUDENTS = ("qwen2.5-vl-3b", "qwen2.5-vl-7b")
PEAK_TFLOPS = {"H100": 989.4, "H200": 989.4, "A100": 312.0}
"""Dense bf16, of the data sheets of the SXM cards."""
REPEATS = 5


def shard(model: Any) -> Any:
    """FSDP2 around each layer and around the whole, computing in bf16, as verl wraps."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    names = set(model._no_split_modules or ())
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if type(module).__name__ in names:
            fully_shard(module, mp_policy=policy)
    return fully_shard(model, mp_policy=policy)


def policy_update(model: Any, size: Size, device: str) -> Callable[[], Tensor]:
    """Forward and backward of Equation 2 over one micro-batch."""
    (rows, length), response = size.policy_rows, size.assumed.response_tokens
    image, pictures = model.config.image_token_id, size.assumed.image_tokens
    tokens = torch.randint(8, size.config["text_config"]["vocab_size"], (rows, length))
    tokens[tokens == image] = 7
    tokens[:, 1 : 1 + pictures] = image
    tokens = tokens.to(device)
    high = next(n for n in range(math.isqrt(pictures), 0, -1) if pictures % n == 0)
    grid = torch.tensor([[1, 2 * high, 2 * pictures // high]] * rows, device=device)
    pixels = torch.randn(int(grid.prod(-1).sum()), 3 * 2 * 14 * 14, device=device)
    # Given, so that no version of transformers has to work them out; speed does not depend on them.
    positions = torch.arange(length, device=device).expand(3, rows, -1)
    advantages = torch.randn(rows, device=device)

    def update() -> Tensor:
        logits = model(
            input_ids=tokens,
            position_ids=positions,
            pixel_values=pixels.to(torch.bfloat16),
            image_grid_thw=grid,
            use_cache=False,
        ).logits
        # Row by row and again in the backward, as nothing but the logits is kept in verl either.
        each = [
            checkpoint(log_probs, row, own, use_reentrant=False)
            for row, own in zip(logits, tokens, strict=True)
        ]
        return backward(torch.stack(each)[:, -response:], advantages)

    return update


def shared_update(model: Any, size: Size, device: str) -> Callable[[], Tensor]:
    """The same over as many rows of one question, whose prompt is computed once."""
    (rows, length), response = size.policy_rows, size.assumed.response_tokens
    prompt, pictures = length - response, size.assumed.image_tokens
    layout = SharedPrompts.of([prompt] * rows, [response] * rows, [0] * rows).to(device)
    image = model.config.image_token_id
    tokens = torch.randint(8, size.config["text_config"]["vocab_size"], (1, len(layout.source)))
    tokens[tokens == image] = 7
    tokens[:, 1 : 1 + pictures] = image
    tokens = tokens.to(device)
    high = next(n for n in range(math.isqrt(pictures), 0, -1) if pictures % n == 0)
    grid = torch.tensor([[1, 2 * high, 2 * pictures // high]], device=device)
    pixels = torch.randn(int(grid.prod(-1).sum()), 3 * 2 * 14 * 14, device=device)
    positions = torch.arange(length, device=device).repeat(rows)[layout.source].expand(3, 1, -1)
    advantages = torch.randn(rows, device=device)
    model.get_decoder().set_attn_implementation(ATTENTION)
    model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0][:, layout.predicting],)
    )

    def update() -> Tensor:
        logits = model(
            input_ids=tokens,
            position_ids=positions,
            pixel_values=pixels.to(torch.bfloat16),
            image_grid_thw=grid,
            use_cache=False,
            shared_prompts=layout,
        ).logits[0]
        labels = tokens[0, layout.responses]
        each = [
            checkpoint(token_log_probs, row, own, use_reentrant=False)
            for row, own in zip(logits.split(response), labels.split(response), strict=True)
        ]
        return backward(torch.stack(each), advantages)

    return update


def backward(log_prob: Tensor, advantages: Tensor) -> Tensor:
    """The gradient of Equation 2 for responses (N, T); returns the loss."""
    rows, response = log_prob.shape
    loss = policy_loss(
        *(log_prob, None, log_prob.detach() - 0.01, advantages, torch.ones_like(log_prob)),
        **{"clip_eps": 0.2, "kl_coef": 0.01, "length_scale": response, "num_responses": rows},
    ).loss
    loss.backward()
    return loss.detach()


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of tokens by the logits before each: (T,) from (T, V) and (T,)."""
    return -nn.functional.cross_entropy(logits.float(), tokens, reduction="none")


def log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of a row's tokens from the second on, in float32: (T - 1,) from (T, V) and (T,)."""
    return -nn.functional.cross_entropy(logits[:-1].float(), tokens[1:], reduction="none")


def discriminator_update(model: Any, size: Size, device: str) -> Callable[[], Tensor]:
    """Forward and backward of Equation 1 over one micro-batch."""
    shape = size.discriminator_rows
    tokens = torch.randint(8, size.config["text_config"]["vocab_size"], shape).to(device)
    positions = torch.arange(shape[1], device=device).expand(*shape)
    labels = (torch.arange(shape[0], device=device) % 2).float()

    def update() -> Tensor:
        logits = model(input_ids=tokens, position_ids=positions).logits[:, -1, 0]
        loss = discriminator_loss(logits, labels, torch.ones_like(labels), shape[0])
        loss.backward()
        return loss.detach()

    return update


def measure(model: Any, update: Callable[[], Tensor], device: str, *, step: bool) -> dict[str, Any]:
    """Median seconds of an update and of AdamW's step, and the peak of the device's memory.

    Args:
        step: with AdamW; its moments are 8 bytes for each parameter.

    Raises:
        ValueError: a loss is not finite, which would be no update.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) if step else None
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    updates, steps = [], []
    for _ in range(REPEATS + 1):
        start = clock(device)
        loss = update()
        middle = clock(device)
        if optimiser is not None:
            optimiser.step()
        updates.append(middle - start)
        steps.append(clock(device) - middle)
        model.zero_grad()
        if not bool(loss.isfinite()):
            raise ValueError(f"the loss is {float(loss)}; the update measured nothing")
    found: dict[str, Any] = {"seconds": round(statistics.median(updates[1:]), 4)}
    if step:
        found["optimiser_seconds"] = round(statistics.median(steps[1:]), 4)
    if device == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    return found


def clock(device: str) -> float:
    """Seconds, when the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def speed(found: dict[str, Any], tokens: int, forward: float, peak: float | None) -> dict[str, Any]:
    """Tokens per second; MFU counts three forwards, the other also the one of checkpointing."""
    found["tokens"] = tokens
    found["tokens_per_second"] = round(tokens / found["seconds"], 1)
    for name, forwards in (("mfu", 3), ("mfu_with_recomputation", 4)):
        reached = forwards * forward / found["seconds"] / 1e12
        found[name] = None if peak is None else round(reached / peak, 4)
    return found


def planned(part: Trained, *, step: bool) -> float:
    """GiB that the plan gives a trained model at its work, without what the GPU reserves."""
    return round((part.at_work - (0.0 if step else part.optimiser)) / GIB, 2)


def one(size: Size, device: str, peak: float | None, memory: float) -> dict[str, Any]:
    """Both updates of one student.

    Raises:
        UserError: it does not fit on this GPU even without AdamW's moments.
    """
    architecture, plan = size.architecture, size.memory
    assert plan.discriminator is not None, "the recipe imitates"
    # With AdamW where all fits, else weights and gradients alone.
    least, step = planned(plan.policy, step=False), planned(plan.policy, step=True) <= memory
    if least > memory:
        raise UserError(f"{size.name} needs {least} GiB without AdamW, {memory:.0f} are free")
    found: dict[str, Any] = {"student": size.name, "parameters": architecture.parameters}
    found["held"] = "weights, gradients" + (", AdamW's moments" if step else "") + " in float32"

    def part(
        model: Any,
        make: Callable[..., Callable[[], Tensor]],
        shape: tuple[int, int],
        forward: float,
    ) -> dict[str, Any]:
        measured = measure(model, make(model, size, device), device, step=step)
        measured |= {"rows": shape[0], "row_tokens": shape[1]}
        return speed(measured, shape[0] * shape[1], shape[0] * forward, peak)

    student = shard(build_student(size, device))
    forward = response_flops(architecture, size.assumed)
    found["policy"] = part(student, policy_update, size.policy_rows, forward)
    found["policy"]["planned_gib"] = planned(plan.policy, step=step)
    found["policy, prompt once"] = part(student, shared_update, size.policy_rows, forward)
    del student
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    judge = shard(Discriminator(build_student(size, device).get_decoder()).to(device))
    forward = discriminator_flops(size.recipe, architecture, size.assumed)
    found["discriminator"] = part(judge, discriminator_update, size.discriminator_rows, forward)
    found["discriminator"]["planned_gib"] = planned(plan.discriminator, step=step)
    return found


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    import transformers

    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if device == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / GIB, 1)
    else:
        found["cpu"] = platform.processor() or platform.machine()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found | {"commit": commit.stdout.strip() or None}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write; after each student, so that what ran out of memory loses nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", action="append", choices=STUDENTS, help="default: both")
    parser.add_argument("--tiny", action="store_true", help="a student of two layers, on the CPU")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    device = "cpu" if options.tiny else "cuda"
    if not options.tiny and not torch.cuda.is_available():
        sys.exit("gpu_update.py: torch sees no GPU here; --tiny --out FILE checks it on a CPU")
    sizes = (
        [Size.tiny()] if options.tiny else [Size.of(each) for each in options.student or STUDENTS]
    )
    found: dict[str, Any] = {"command": "make bench-gpu", **machine(device)}
    found["peak_tflops"] = peak = next(
        (value for name, value in PEAK_TFLOPS.items() if name in found.get("gpu", "")), None
    )
    found |= {"attention": "sdpa", "repeats": REPEATS, "students": []}
    memory = found.get("memory_gib", float("inf")) - 2.0  # CUDA itself and fragments
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device == "cuda" else "gloo"
        torch.distributed.init_process_group(
            backend, init_method=f"file://{folder}/group", rank=0, world_size=1
        )
        try:
            for size in sizes:
                try:
                    found["students"].append(one(size, device, peak, memory))
                except (UserError, torch.OutOfMemoryError) as error:
                    refused = {"student": size.name, "refused": str(error).splitlines()[0]}
                    found["students"].append(refused)
                sys.stderr.write(f"{found['students'][-1]}\n")
                options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
                gc.collect()
        finally:
            torch.distributed.destroy_process_group()
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
