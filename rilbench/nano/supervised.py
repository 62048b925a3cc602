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
from rilbench.nano.pictures import GLYPHS, Picture
from rilbench.nano.question import Question
from rilbench.nano.tasks import FAMILIES, make

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers import Qwen2_5_VLProcessor as Processor

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
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Processor,
    course: Course,
    on_step: OnStep,
) -> None:
    """Teach the vision tower to name the glyph of each cell, through a linear head thrown away.

    A model that can see learns to answer in a tenth of the steps.
    """
    import torch

    torch.manual_seed(course.seed)
    vision = model.model.visual
    head = torch.nn.Linear(model.config.text_config.hidden_size, len(GLYPHS))
    rng = np.random.default_rng([course.seed, 1])
    pool, families = pools()[course.pool], tuple(FAMILIES)

    def losses() -> Iterator[torch.Tensor]:
        for _ in range(course.eyes):
            chosen = [families[int(i)] for i in rng.integers(len(families), size=64)]
            shown = [make(family, pool, rng)[0] for family in chosen]
            images = open_images(shown)
            batch = processor.image_processor(images=images, return_tensors="pt")
            seen = vision(batch["pixel_values"], grid_thw=batch["image_grid_thw"]).pooler_output
            target = torch.tensor([GLYPHS.index(g) for picture in shown for g in picture.glyphs])
            yield torch.nn.functional.cross_entropy(head(seen), target)

    parameters = [*vision.parameters(), *head.parameters()]
    _optimise(parameters, losses(), course.eyes, 3e-3, on_step)


def open_images(pictures: Sequence[Picture]) -> list[Image.Image]:
    """All images of the pictures, in their order."""
    return [Image.open(io.BytesIO(image)) for picture in pictures for image in picture.images]


# ---- answers


def train_answers(
    model: Qwen2_5_VLForConditionalGeneration,
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
