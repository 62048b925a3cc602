"""Supervised training of the small models: first the vision tower, then the answers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rilbench.nano.digits import pools
from rilbench.nano.question import SyntheticQuestion
from rilbench.nano.render_images import GLYPHS, Picture
from rilbench.nano.tasks import STAND_INS, make_question

if TYPE_CHECKING:
    import torch

    from rilbench.nano.model import Model, Processor

OnStep = Callable[[int, float], None]
"""Called after each step with its number and loss."""
Example = tuple[Picture, SyntheticQuestion, str]
"""A picture, a question about it, and the answer to learn."""


@dataclass(frozen=True)
class SFTConfig:
    """The supervised training of one small model.

    Attributes:
        steps: of the training on answers.
        lr: peak learning rate of these steps.
        batch_size: questions of a step.
        vision_steps: earlier steps, in which the vision tower learns to name what a cell shows.
        pool: the pool of digits.
        weights: how often a benchmark is asked, relative to the others; 1 where not named.
        worked_share: share of questions answered in the worked style; the rest gets bare answers.
        misread_rates: share of pictures that are read wrongly, by benchmark.
    """

    steps: int
    lr: float
    seed: int
    batch_size: int = 48
    vision_steps: int = 0
    pool: str = "pretrain"
    weights: Mapping[str, float] = field(default_factory=dict)
    worked_share: float = 1.0
    misread_rates: Mapping[str, float] = field(default_factory=dict)


def _optimise(
    parameters: Sequence[torch.Tensor],
    losses: Iterator[torch.Tensor],
    steps: int,
    lr: float,
    on_step: OnStep,
) -> None:
    """Minimise one loss after another by AdamW: warm-up, then a cosine to a tenth of ``lr``."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    for step, loss in enumerate(losses):
        warm_up = min(1.0, (step + 1) / min(50, max(1, steps // 8)))
        cosine = 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * warm_up * cosine
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        on_step(step + 1, float(loss.detach()))


# ---- vision


def train_vision(model: Model, processor: Processor, config: SFTConfig, on_step: OnStep) -> None:
    """Teach the vision tower to name the glyph of each cell, through a temporary linear head.

    A model that can see learns to answer in a tenth of the steps.
    """
    import torch

    torch.manual_seed(config.seed)
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(GLYPHS))
    rng = np.random.default_rng([config.seed, 1])
    pool, benchmarks = pools()[config.pool], tuple(STAND_INS)

    def losses() -> Iterator[torch.Tensor]:
        for _ in range(config.vision_steps):
            chosen = [benchmarks[int(i)] for i in rng.integers(len(benchmarks), size=64)]
            pictures = [make_question(benchmark, pool, rng)[0] for benchmark in chosen]
            cells = _cells(model, processor, open_images(pictures))
            target = torch.tensor([GLYPHS.index(g) for picture in pictures for g in picture.glyphs])
            yield torch.nn.functional.cross_entropy(head(cells), target)

    if model.config.model_type == "internvl":
        parts = [model.model.vision_tower, model.model.multi_modal_projector]
    else:
        parts = [model.model.visual]
    parameters = [parameter for part in (*parts, head) for parameter in part.parameters()]
    _optimise(parameters, losses(), config.vision_steps, 3e-3, on_step)


def _cells(model: Model, processor: Processor, images: Sequence[Image.Image]) -> torch.Tensor:
    """Return the decoder's input of each cell (cells, hidden size), in the order of the glyphs."""
    import torch

    if model.config.model_type != "internvl":
        batch = processor.image_processor(images=images, return_tensors="pt")
        seen = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
        cells: torch.Tensor = seen.pooler_output
        return cells
    batch = processor.image_processor(images=images, crop_to_patches=True, return_tensors="pt")
    tiles = model.get_image_features(
        batch["pixel_values"],
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
    ).pooler_output[:, 0]
    # After the tiles of a picture that has several comes its thumbnail, which is no cell.
    parts = tiles.split(list(batch["num_patches"]))
    return torch.cat([part if len(part) == 1 else part[:-1] for part in parts])


def open_images(pictures: Sequence[Picture]) -> list[Image.Image]:
    """Return all images of the pictures, in order."""
    return [Image.open(io.BytesIO(image)) for picture in pictures for image in picture.images]


# ---- answers


def train_answers(model: Model, processor: Processor, config: SFTConfig, on_step: OnStep) -> None:
    """Minimise the cross-entropy of the answers' tokens."""

    def losses() -> Iterator[torch.Tensor]:
        for examples in _batches(config):
            # Short and long examples apart, so that they need little padding.
            examples.sort(key=lambda example: len(example[1].prompt) + len(example[2]))
            half = config.batch_size // 2
            parts = [_inputs(processor, part) for part in (examples[:half], examples[half:])]
            tokens = [int((part["labels"] != -100).sum()) for part in parts]
            means = [model(**part).loss for part in parts]
            yield (means[0] * tokens[0] + means[1] * tokens[1]) / sum(tokens)

    model.train()
    _optimise(list(model.parameters()), losses(), config.steps, config.lr, on_step)
    model.eval()


def _batches(config: SFTConfig) -> Iterator[list[Example]]:
    rng = np.random.default_rng(config.seed)
    pool, benchmarks = pools()[config.pool], tuple(STAND_INS)
    weights = np.array([config.weights.get(benchmark, 1.0) for benchmark in benchmarks])
    for _ in range(config.steps):
        examples = []
        for k in rng.choice(len(benchmarks), size=config.batch_size, p=weights / weights.sum()):
            benchmark = benchmarks[int(k)]
            misread = config.misread_rates.get(benchmark, 0.0)
            picture, question = make_question(benchmark, pool, rng, misread=misread)
            worked = rng.random() < config.worked_share
            examples.append((picture, question, question.worked if worked else question.bare))
        yield examples


def messages(picture: Picture, question: SyntheticQuestion, answer: str | None = None) -> list[Any]:
    """Return the chat: pictures where the prompt has ``<image>``, else before its text."""
    parts: list[dict[str, str]] = []
    segments = question.prompt.split("<image>")
    if len(segments) == 1:
        parts = [{"type": "image"}] * len(picture.images)
    for i, text in enumerate(segments):
        parts += [{"type": "image"}] if i else []
        parts += [{"type": "text", "text": text}] if text else []
    asked = [{"role": "user", "content": parts}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": answer}]


def _inputs(processor: Processor, examples: list[Example]) -> dict[str, torch.Tensor | Any]:
    """Return a batch of full chats; ``labels`` cover the assistant's text and its end token."""
    texts = [processor.apply_chat_template(messages(*one), tokenize=False) for one in examples]
    images = open_images([picture for picture, _, _ in examples])
    batch = processor(
        text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"
    )
    labels = batch["input_ids"].clone()
    tokenizer = processor.tokenizer
    start, end = (tokenizer.convert_tokens_to_ids(f"<|im_{x}|>") for x in ("start", "end"))
    header = len(tokenizer.encode("<|im_start|>assistant\n"))
    for i, ids in enumerate(batch["input_ids"]):
        labels[i, : int((ids == start).nonzero()[-1]) + header] = -100
        labels[i, int((ids == end).nonzero()[-1]) + 1 :] = -100
    return {**batch, "labels": labels}
