"""What an evaluation would take: tokens of pictures, servers, time and disk; and what exists."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from rilbench.api_keys import without_query_values
from rilbench.checkpoint import PROCESSOR_FILES, Checkpoint
from rilbench.devices import gpus
from rilbench.errors import UserError
from rilbench.evaluate.cost_estimate import RESPONSE_TOKENS, Estimate
from rilbench.evaluate.image_resize import Pixels
from rilbench.evaluate.model_server import layout_for, requests_in_flight, server_line
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.prompts import Key, PromptSet
from rilbench.evaluate.responses import AnswerFile
from rilbench.plan.architecture import find_architecture
from rilbench.plan.assumptions import DEVICES, Assumptions
from rilbench.plan.compute_cost import decode_seconds, forward_flops, vision_flops
from rilbench.progress import in_words

_PIXELS_PER_TOKEN = 28 * 28  # of Qwen2-VL, Qwen2.5-VL and InternVL
_TILE = 448  # pixels of a side of InternVL's input
_UNPACKED = 1.75  # bytes in the work folder for a byte of data: the file, and its pictures
_ASKED_AT_ONCE = 32


def picture_tokens(prompts: PromptSet, pixels: Pixels, model: Checkpoint | None) -> dict[Key, int]:
    """Return the tokens of each question's pictures, about, by their sizes alone.

    Args:
        prompts: with the pictures, unpacked.
        pixels: size limits of those that are sent.
        model: whose processor has limits of its own; None: without such.
    """
    from PIL import Image

    limits, tiles = _processor(model)
    found: dict[Key, int] = {}
    known: dict[str, int] = {}
    for question in prompts.questions:
        total = 0
        for part in question.parts:
            if part["type"] != "image":
                continue
            if part["path"] not in known:
                with Image.open(prompts.folder / part["path"]) as picture:
                    sent = pixels.size(*picture.size)
                known[part["path"]] = tiles or math.prod(limits.size(*sent)) // _PIXELS_PER_TOKEN
            total += known[part["path"]]
        found[question.key] = total
    return found


def _processor(model: Checkpoint | None) -> tuple[Pixels, int]:
    """Return the size limits of a model's processor, and its tokens of any picture where fixed."""
    if model is None:
        return Pixels(), 0
    files = (model.path / name for name in PROCESSOR_FILES)
    settings: dict[str, Any] = next(
        (json.loads(file.read_bytes()) for file in files if file.is_file()), {}
    )
    if model.model_type.startswith("internvl"):
        tiles = 1 + settings.get("max_patches", 12) if settings.get("crop_to_patches") else 1
        return Pixels(), tiles * _TILE**2 // _PIXELS_PER_TOKEN
    size = settings.get("size") or {}
    least = settings.get("min_pixels") or size.get("shortest_edge")
    most = settings.get("max_pixels") or size.get("longest_edge")
    return Pixels(least, most), 0


def dry_run_lines(
    options: EvalOptions,
    estimates: Sequence[Estimate],
    models: Sequence[Checkpoint],
    stored: Mapping[str, tuple[AnswerFile, int]],
) -> list[str]:
    """Return what is started, how long it takes, what exists, and the disk that is needed.

    Args:
        options: of the evaluation.
        estimates: of its benchmarks.
        models: to be evaluated; none where only an endpoint is known.
        stored: by model, its responses, and how many of the questions have none.
    """
    lines, asked = [], sum(one.requests for one in estimates)
    for name, (_, missing) in stored.items():
        lines.append(f"{name}: {asked - missing:,} of {asked:,} responses exist")
    if options.endpoint is not None:
        where = without_query_values(options.endpoint)
        lines.append(f"asked at {where}; no server is started")
    elif options.engine == "batch":
        lines.append(f"no server is started: batches of {options.batch} on {options.device}")
    else:
        lines += [f"server of {server_line(options, str(model.path))}" for model in models]
    lines += [_time(options, estimates, model, stored.get(str(model.path))) for model in models]
    return [*lines, _disk(options)]


def _time(
    options: EvalOptions,
    estimates: Sequence[Estimate],
    model: Checkpoint,
    stored: tuple[AnswerFile, int] | None,
) -> str:
    """Return how long the responses take, by those that exist, or by the model's arithmetic."""
    requests = sum(one.requests for one in estimates)
    missing = stored[1] if stored is not None else requests
    if not missing:
        return f"{model.path.name}: no response is needed"
    seconds = [c.seconds for c in stored[0].found.values() if not c.failed] if stored else []
    if seconds and options.engine == "server":
        layout = layout_for(options, str(model.path))
        at_once = requests_in_flight(options, layout.data_parallel).first
        mean = sum(seconds) / len(seconds)
        left = in_words(missing * mean / at_once)
        return f"{model.path.name}: about {left}, by its responses so far ({mean:.1f} s each)"
    if options.vllm is None or options.endpoint is not None:
        return f"{model.path.name}: the time is not known before the first responses"
    try:
        shape = find_architecture(str(model.path))
    except UserError:
        return f"{model.path.name}: the time is not known before the first responses"
    prompt = sum(one.text_tokens + one.picture_tokens for one in estimates) / max(requests, 1)
    pictures = sum(one.picture_tokens for one in estimates) / max(requests, 1)
    _, tflops, bandwidth = DEVICES[min(DEVICES, key=lambda gib: abs(gib - options.gpu_gib))]
    assumed = Assumptions(
        prompt_tokens=round(prompt),
        image_tokens=round(pictures),
        response_tokens=RESPONSE_TOKENS,
        bandwidth=bandwidth,
    )
    layout = layout_for(options, str(model.path))
    devices = layout.tensor_parallel * layout.data_parallel
    flops = forward_flops(shape, prompt, prompt) + vision_flops(shape, pictures)
    reading = missing * flops / (tflops * 1e12 * assumed.mfu * devices)
    token = decode_seconds(shape, _ASKED_AT_ONCE, layout.tensor_parallel, 2, assumed)
    writing = missing * RESPONSE_TOKENS * token / (_ASKED_AT_ONCE * layout.data_parallel)
    return (
        f"{model.path.name}: about {in_words(reading + writing)} on {devices} of "
        f"{gpus()[0].name if gpus() else 'GPU'}, by arithmetic, not measured "
        f"({RESPONSE_TOKENS} tokens a response), and its start"
    )


def _disk(options: EvalOptions) -> str:
    """Return the room that prompts and pictures take in the work folder."""
    files = [path for path in options.data.rglob("*") if path.suffix in (".tsv", ".parquet")]
    names = {dataset.name for dataset in options.chosen().datasets}
    needed = _UNPACKED * sum(f.stat().st_size for f in files if f.stem in names)
    existing = next(
        path
        for path in (options.work.absolute(), *options.work.absolute().parents)
        if path.is_dir()
    )
    free = shutil.disk_usage(existing).free
    return f"disk: about {needed / 1e9:.1f} GB in {options.work}, {free / 1e9:.0f} GB are free"
