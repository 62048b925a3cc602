"""A quick look at a model of the laboratory: how often it is right on fresh questions."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from rilbench.judge.rules import is_right
from rilbench.nano.digits import draw, pools
from rilbench.nano.tasks import FAMILIES, Question, ask

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration
    from transformers import Qwen2_5_VLProcessor as Processor


def answers(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Processor,
    *,
    pool: str,
    questions: int,
    seed: int,
    temperature: float = 0.0,
) -> list[tuple[Question, str]]:
    """Ask ``questions`` fresh questions of each family; greedy unless a temperature is given."""
    import torch

    rng = np.random.default_rng(seed)
    asked: list[tuple[Question, bytes]] = []
    for family in FAMILIES:
        for _ in range(questions):
            picture = draw(pools()[pool], rng)
            asked.append((ask(picture, family, rng), picture.jpeg))
    out: list[tuple[Question, str]] = []
    torch.manual_seed(seed)
    for start in range(0, len(asked), 128):
        part = asked[start : start + 128]
        texts = [
            processor.apply_chat_template(
                [
                    {
                        "role": "user",
                        "content": [{"type": "image"}, {"type": "text", "text": q.prompt}],
                    }
                ],
                tokenize=False,
                add_generation_prompt=True,
            )
            for q, _ in part
        ]
        images = [Image.open(io.BytesIO(jpeg)) for _, jpeg in part]
        batch = processor(
            text=texts, images=images, padding=True, padding_side="left", return_tensors="pt"
        )
        sampling: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            sampling |= {"temperature": temperature, "top_k": 0}
        with torch.no_grad():
            tokens = model.generate(**batch, max_new_tokens=48, **sampling)
        words = processor.batch_decode(
            tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        out += [(q, text) for (q, _), text in zip(part, words, strict=True)]
    return out


def accuracy(answered: list[tuple[Question, str]]) -> dict[str, float]:
    """Share right by family, by the rules of the laboratory's judge."""
    right: dict[str, list[bool]] = {}
    for question, text in answered:
        right.setdefault(question.family, []).append(is_right(question.accepted, text))
    return {family: sum(hits) / len(hits) for family, hits in right.items()}
