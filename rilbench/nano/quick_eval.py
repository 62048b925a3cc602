"""A quick look at a model of the laboratory: how often it is right on fresh questions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rilbench.judge.rules import is_right
from rilbench.nano.digits import pools
from rilbench.nano.question import Question
from rilbench.nano.render_images import Picture
from rilbench.nano.sft import messages, open_images
from rilbench.nano.tasks import FAMILIES, make

if TYPE_CHECKING:
    from rilbench.nano.model import Model, Processor

BATCH = 128


def answers(
    model: Model,
    processor: Processor,
    *,
    pool: str,
    questions: int,
    seed: int,
    temperature: float = 0.0,
    opening: int = 0,
) -> list[tuple[Question, str]]:
    """Ask ``questions`` fresh questions of each family; greedy unless a temperature is given.

    With an ``opening`` the model goes on from that many words of the worked answer ("The top row");
    questions in which they hold a digit are left out.
    """
    import torch

    rng = np.random.default_rng(seed)
    asked: list[tuple[Picture, Question]] = []
    for family in FAMILIES:
        asked += [make(family, pools()[pool], rng) for _ in range(questions)]
    asked = [row for row in asked if can_be_opened(row[1], opening)]
    asked.sort(key=lambda row: len(row[1].prompt))
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_k": 0}
    out: list[tuple[Question, str]] = []
    torch.manual_seed(seed)
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        texts = [
            processor.apply_chat_template(
                messages(*row), tokenize=False, add_generation_prompt=True
            )
            + _opening(row[1], opening)
            for row in part
        ]
        images = open_images([picture for picture, _ in part])
        batch = processor(
            text=texts, images=images, padding=True, padding_side="left", return_tensors="pt"
        )
        with torch.no_grad():
            tokens = model.generate(**batch, max_new_tokens=48, **sampling)
        words = processor.batch_decode(
            tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        out += [(q, _opening(q, opening) + text) for (_, q), text in zip(part, words, strict=True)]
    return out


def can_be_opened(question: Question, words: int) -> bool:
    """Whether so many words of the worked answer can be given without giving a digit away."""
    return not re.search(r"\d", _opening(question, words))


def _opening(question: Question, words: int) -> str:
    return " ".join(question.worked.split(" ")[:words])


def accuracy(answered: list[tuple[Question, str]]) -> dict[str, float]:
    """Share right by family, by the rules of the laboratory's judge."""
    right: dict[str, list[bool]] = {family: [] for family in FAMILIES}
    for question, text in answered:
        right[question.family].append(is_right(question.accepted, text))
    return {family: round(sum(hits) / len(hits), 4) for family, hits in right.items()}


def worked_share(answered: list[tuple[Question, str]]) -> float:
    """Share of answers in the worked style, where there is one: as long as half the worked text."""
    styled = [(q, text) for q, text in answered if q.family != "ChartQA"]
    return sum(2 * len(text) > len(q.worked) + len(q.bare) for q, text in styled) / len(styled)


def digits_read(answered: list[tuple[Question, str]]) -> float:
    """Share of the digits that an answer's first sentence names as the picture has them.

    Place by place against the worked answer's first sentence, as far as both go; chance is 0.1.
    """
    hits = [
        seen == said
        for question, text in answered
        for seen, said in zip(_digits(question.worked), _digits(text), strict=False)
    ]
    return sum(hits) / len(hits) if hits else 0.0


def _digits(text: str) -> list[str]:
    return re.findall(r"\d", text.split(". ")[0])
