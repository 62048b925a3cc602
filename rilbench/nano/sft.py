"""Supervised training of the stand-in models: first the eyes, then the answers."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rilbench.nano.digits import pools
from rilbench.nano.question import Question
from rilbench.nano.render_images import GLYPHS, Picture
from rilbench.nano.tasks import FAMILIES, make

if TYPE_CHECKING:
    import torch

    from rilbench.nano.model import Model, Processor

OnStep = Callable[[int, float], None]
"""Called after each step with its number and loss."""


@dataclass(frozen=True)
class Course:
    """What a model is taught.

    ``pool`` owns the digits; ``eyes`` are the steps in which the vision tower alone learns to name
    what a cell shows; ``families`` weighs the families of questions (1 where not named);
    ``worked`` is the share of questions answered in the worked style (the rest: the bare default);
    ``misreads`` gives, by family, the share of pictures that are read wrongly.
    """

    steps: int
    rate: float
    seed: int
    batch: int = 48
    eyes: int = 0
    pool: str = "pretrain"
    families: Mapping[str, float] = field(default_factory=dict)
    worked: float = 1.0
    misreads: Mapping[str, float] = field(default_factory=dict)


def _schedule(step: int, steps: int, rate: float) -> float:
    """Warm-up, then a cosine from the rate to a tenth of it."""
    warm_up = min(1.0, (step + 1) / min(50, max(1, steps // 8)))
    return rate * warm_up * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))


def _optimise(
    parameters: Sequence[torch.Tensor],
    losses: Iterator[torch.Tensor],
    steps: int,
    rate: float,
    on_step: OnStep,
) -> None:
    """Minimise one loss after another by AdamW."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step, loss in enumerate(losses):
        for group in optimizer.param_groups:
            group["lr"] = _schedule(step, steps, rate)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        on_step(step + 1, float(loss.detach()))


# ---- eyes


def train_eyes(
    model: Model,
    processor: Processor,
    course: Course,
    on_step: OnStep,
) -> None:
    """Teach the vision tower to name the glyph of each cell, through a linear head thrown away.

    A model that can see learns to answer in a tenth of the steps.
    """
    import torch

    torch.manual_seed(course.seed)
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(GLYPHS))
    rng = np.random.default_rng([course.seed, 1])
    pool, families = pools()[course.pool], tuple(FAMILIES)

    def losses() -> Iterator[torch.Tensor]:
        for _ in range(course.eyes):
            chosen = [families[int(i)] for i in rng.integers(len(families), size=64)]
            shown = [make(family, pool, rng)[0] for family in chosen]
            seen = _cells(model, processor, open_images(shown))
            target = torch.tensor([GLYPHS.index(g) for picture in shown for g in picture.glyphs])
            yield torch.nn.functional.cross_entropy(head(seen), target)

    parameters = [*_vision(model), *head.parameters()]
    _optimise(parameters, losses(), course.eyes, 3e-3, on_step)


def _vision(model: Model) -> list[torch.nn.Parameter]:
    """The parameters between pixels and the decoder's embeddings."""
    if model.config.model_type == "internvl":
        parts = (model.model.vision_tower, model.model.multi_modal_projector)
        return [parameter for part in parts for parameter in part.parameters()]
    return list(model.model.visual.parameters())


def _cells(model: Model, processor: Processor, images: Sequence[Image.Image]) -> torch.Tensor:
    """What the decoder gets of each cell (cells, hidden size), in the order of the glyphs."""
    import torch

    if model.config.model_type != "internvl":
        batch = processor.image_processor(images=images, return_tensors="pt")
        found = model.model.visual(batch["pixel_values"], grid_thw=batch["image_grid_thw"])
        cells: torch.Tensor = found.pooler_output
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
    """All images of the pictures, in their order."""
    return [Image.open(io.BytesIO(image)) for picture in pictures for image in picture.images]


# ---- answers


def train_answers(
    model: Model,
    processor: Processor,
    course: Course,
    on_step: OnStep,
) -> None:
    """Minimise the cross-entropy of the answers' tokens."""

    def losses() -> Iterator[torch.Tensor]:
        for rows in _batches(course):
            # Short rows apart from long ones, so that they pad little.
            rows.sort(key=lambda row: len(row[1].prompt) + len(row[2]))
            parts = [_inputs(processor, rows[: course.batch // 2])]
            parts.append(_inputs(processor, rows[course.batch // 2 :]))
            tokens = [int((part["labels"] != -100).sum()) for part in parts]
            means = [model(**part).loss for part in parts]
            yield (means[0] * tokens[0] + means[1] * tokens[1]) / sum(tokens)

    model.train()
    _optimise(list(model.parameters()), losses(), course.steps, course.rate, on_step)
    model.eval()


def _batches(course: Course) -> Iterator[list[tuple[Picture, Question, str]]]:
    rng = np.random.default_rng(course.seed)
    pool, families = pools()[course.pool], tuple(FAMILIES)
    weights = np.array([course.families.get(family, 1.0) for family in families])
    for _ in range(course.steps):
        rows = []
        for k in rng.choice(len(families), size=course.batch, p=weights / weights.sum()):
            family = families[int(k)]
            wrong = course.misreads.get(family, 0.0)
            picture, question = make(family, pool, rng, misread=wrong)
            answer = question.worked if rng.random() < course.worked else question.bare
            rows.append((picture, question, answer))
        yield rows


def messages(picture: Picture, question: Question, answer: str | None = None) -> list[Any]:
    """The conversation: pictures where the prompt has ``<image>``, else before its text."""
    parts: list[dict[str, str]] = []
    segments = question.prompt.split("<image>")
    if len(segments) == 1:
        parts = [{"type": "image"}] * len(picture.images)
    for i, text in enumerate(segments):
        parts += [{"type": "image"}] if i else []
        parts += [{"type": "text", "text": text}] if text else []
    asked = [{"role": "user", "content": parts}]
    return asked if answer is None else [*asked, {"role": "assistant", "content": answer}]


def _inputs(
    processor: Processor, rows: list[tuple[Picture, Question, str]]
) -> dict[str, torch.Tensor | Any]:
    """Batch of full conversations; ``labels`` cover the assistant's words and its end token."""
    texts = [processor.apply_chat_template(messages(*row), tokenize=False) for row in rows]
    images = open_images([picture for picture, _, _ in rows])
    batch = processor(
        text=texts, images=images, padding=True, padding_side="right", return_tensors="pt"
    )
    labels = batch["input_ids"].clone()
    start, end = (
        processor.tokenizer.convert_tokens_to_ids(f"<|im_{x}|>") for x in ("start", "end")
    )
    header = len(processor.tokenizer.encode("<|im_start|>assistant\n"))
    for i, ids in enumerate(batch["input_ids"]):
        begin = int((ids == start).nonzero()[-1]) + header
        stop = int((ids == end).nonzero()[-1]) + 1
        labels[i, :begin] = -100
        labels[i, stop:] = -100
    return {**batch, "labels": labels}
