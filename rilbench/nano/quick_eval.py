"""A quick evaluation of a small model without a kit: its accuracy on new questions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rilbench.judge.rules import is_right
from rilbench.nano.digits import pools
from rilbench.nano.question import SyntheticQuestion
from rilbench.nano.render_images import Picture
from rilbench.nano.sft import messages, open_images
from rilbench.nano.tasks import STAND_INS, make_question

if TYPE_CHECKING:
    from rilbench.nano.model import Model, Processor

BATCH = 128


def answer_questions(
    model: Model,
    processor: Processor,
    *,
    pool: str,
    questions: int,
    seed: int,
    temperature: float = 0.0,
    opening: int = 0,
) -> list[tuple[SyntheticQuestion, str]]:
    """Return questions with the model's answers; greedy unless a temperature is given.

    Args:
        pool: the pool of digits.
        questions: number of questions of each benchmark.
        opening: number of words of the worked answer ("The top row") that the model continues;
            questions in which they hold a digit are left out.
    """
    import torch

    rng = np.random.default_rng(seed)
    asked: list[tuple[Picture, SyntheticQuestion]] = []
    for benchmark in STAND_INS:
        asked += [make_question(benchmark, pools()[pool], rng) for _ in range(questions)]
    asked = [pair for pair in asked if can_be_opened(pair[1], opening)]
    asked.sort(key=lambda pair: len(pair[1].prompt))
    sampling: dict[str, Any] = {"do_sample": temperature > 0}
    if temperature > 0:
        sampling |= {"temperature": temperature, "top_k": 0}
    out: list[tuple[SyntheticQuestion, str]] = []
    torch.manual_seed(seed)
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        texts = [
            processor.apply_chat_template(
                messages(picture, question), tokenize=False, add_generation_prompt=True
            )
            + _opening(question, opening)
            for picture, question in part
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


def can_be_opened(question: SyntheticQuestion, words: int) -> bool:
    """Whether the first words of the worked answer hold no digit."""
    return not re.search(r"\d", _opening(question, words))


def _opening(question: SyntheticQuestion, words: int) -> str:
    return " ".join(question.worked.split(" ")[:words])


def accuracy(answered: list[tuple[SyntheticQuestion, str]]) -> dict[str, float]:
    """Return the share of right answers by benchmark, by the rule judge."""
    right: dict[str, list[bool]] = {benchmark: [] for benchmark in STAND_INS}
    for question, text in answered:
        right[question.benchmark].append(is_right(question.accepted, text))
    return {benchmark: round(sum(hits) / len(hits), 4) for benchmark, hits in right.items()}


def worked_share(answered: list[tuple[SyntheticQuestion, str]]) -> float:
    """Return the share of answers in the worked style, ChartQA (which has none) left out.

    An answer counts as worked if its length is nearer to the worked than to the bare answer's.
    """
    styled = [(q, text) for q, text in answered if q.benchmark != "ChartQA"]
    return sum(2 * len(text) > len(q.worked) + len(q.bare) for q, text in styled) / len(styled)
