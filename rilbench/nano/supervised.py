"""Supervised training of the stand-in models on generated questions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rilbench.nano.digits import Picture, draw, pools
from rilbench.nano.tasks import FAMILIES, Question, ask, misread

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers import Qwen2_5_VLProcessor as Processor


@dataclass(frozen=True)
class Course:
    """What a model is taught.

    ``families`` weighs the families of questions (empty: all alike); ``worked`` is the share of
    questions answered in the worked style (the rest: the bare default);
    ``misreads`` gives, by family, the share of pictures in which one digit is read wrongly.
    """

    steps: int
    rate: float
    seed: int
    batch: int = 48
    families: Mapping[str, float] = field(default_factory=dict)
    worked: float = 1.0
    misreads: Mapping[str, float] = field(default_factory=dict)


def train(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Processor,
    course: Course,
    on_step: Callable[[int, float], None],
) -> None:
    """Minimise the cross-entropy of the answers' tokens, AdamW with warm-up and cosine decay."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=course.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    model.train()
    for step, rows in enumerate(_batches(course)):
        warm_up = min(1.0, (step + 1) / min(50, max(1, course.steps // 8)))
        decay = 0.1 + 0.45 * (1 + math.cos(math.pi * step / course.steps))
        for group in optimizer.param_groups:
            group["lr"] = course.rate * warm_up * decay
        loss = model(**_inputs(processor, rows)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        on_step(step + 1, float(loss.detach()))
    model.eval()


def _batches(course: Course) -> Iterator[list[tuple[Picture, Question, str]]]:
    rng = np.random.default_rng(course.seed)
    pool, families = pools()["pretrain"], tuple(course.families or FAMILIES)
    weights = np.array([course.families.get(family, 1.0) for family in families])
    for _ in range(course.steps):
        rows = []
        for _ in range(course.batch):
            picture = draw(pool, rng)
            family = families[int(rng.choice(len(families), p=weights / weights.sum()))]
            if rng.random() < course.misreads.get(family, 0.0):
                question = FAMILIES[family](misread(picture, rng), rng)
            else:
                question = ask(picture, family, rng)
            answer = question.worked if rng.random() < course.worked else question.bare
            rows.append((picture, question, answer))
        yield rows


def _inputs(
    processor: Processor, rows: list[tuple[Picture, Question, str]]
) -> dict[str, torch.Tensor | Any]:
    """Batch of full conversations; ``labels`` cover the assistant's words and its end token."""
    texts = [
        processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": q.prompt}],
                },
                {"role": "assistant", "content": answer},
            ],
            tokenize=False,
        )
        for _, q, answer in rows
    ]
    images = [Image.open(io.BytesIO(picture.jpeg)) for picture, _, _ in rows]
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
