"""A model that computes a question's prompt and pictures once for all of its responses.

The responses of a question differ, its prompt does not: its keys and values are computed once,
with gradient where one is wanted, and every response goes on from them. Equal responses to a
question are computed once as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from rilbench.config import Sampling
from rilbench.data.question import Question
from rilbench.model.decoder import Decoder, Prompts
from rilbench.model.inputs import never_sampled
from rilbench.model.sampling import processors, sample

ROWS_TOGETHER = 256
"""Responses that are sampled in one batch."""


class PromptInputs:
    """A checkpoint's processor, which prepares the questions of a step once for all models.

    Args:
        folder: the checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.last: tuple[tuple[Question, ...], dict[str, Tensor]] = ((), {})

    def __call__(self, questions: Sequence[Question]) -> dict[str, Tensor]:
        """A model's inputs for one prompt of each question, padded on the left."""
        if self.last[0] != tuple(questions):
            texts = [
                self.processor.apply_chat_template(
                    question.chat, tokenize=False, add_generation_prompt=True
                )
                for question in questions
            ]
            images = [Image.open(io.BytesIO(image)) for q in questions for image in q.images]
            inputs = self.processor(text=texts, images=images, return_tensors="pt", padding=True)
            self.last = tuple(questions), dict(inputs)
        return self.last[1]


class Student:
    """A vision-language model: sampling and log-probabilities of responses.

    Args:
        folder: the checkpoint.
        inputs: those of a model with the same processor; None for its own.
    """

    def __init__(self, folder: Path, inputs: PromptInputs | None = None) -> None:
        self.inputs = inputs or PromptInputs(folder)
        self.tokenizer = self.inputs.tokenizer
        self.end: int = self.tokenizer.eos_token_id
        self.forbidden = never_sampled(self.tokenizer)
        self.image_token: int = self.tokenizer.convert_tokens_to_ids(
            self.inputs.processor.image_token
        )
        # None of the lab's models has dropout: train() would change nothing.
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.decoder = Decoder(self.model.model)

    def save(self, folder: Path) -> None:
        """Write a checkpoint that transformers loads."""
        self.model.save_pretrained(folder)
        self.inputs.processor.save_pretrained(folder)

    def read(self, questions: Sequence[Question]) -> Prompts:
        """Compute the questions' prompts with their pictures; with gradient unless it is off."""
        return self.decoder.read(self.inputs(questions))

    def log_probs(
        self, prompts: Prompts, rows: Tensor, responses: Sequence[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """log π(o | q) token by token.

        Args:
            prompts: of `read`.
            rows: (N,) the prompt of each response.
            responses: N lists of tokens.

        Returns:
            (N, T) log-probabilities, 0 behind a response's end; and the mask of its tokens.
        """
        pairs = [(row, tuple(each)) for row, each in zip(rows.tolist(), responses, strict=True)]
        distinct = sorted(set(pairs), key=lambda pair: (len(pair[1]), pair))
        place = {pair: i for i, pair in enumerate(distinct)}
        rows = torch.tensor([row for row, _ in distinct])
        tokens, mask = padded([each for _, each in distinct], self.end)
        # A token is predicted from the hidden state before it; the last one is not read.
        hidden, behind = prompts.last_hidden[rows], mask[:, 1:]
        if behind.any():
            after = self.decoder.go_on(prompts, rows, tokens[:, :-1], behind)
            hidden = torch.cat([hidden, after])
        target = torch.cat([tokens[:, 0], tokens[:, 1:][behind]])
        log_probs = self.model.lm_head(hidden).log_softmax(-1).gather(-1, target[:, None])[:, 0]
        first, others = log_probs.split([len(rows), len(target) - len(rows)])
        found = torch.zeros(behind.shape).masked_scatter(behind, others)
        every = torch.tensor([place[pair] for pair in pairs])
        return torch.cat([first[:, None], found], 1)[every], mask[every]

    @torch.no_grad()
    def sample(
        self,
        questions: Sequence[Question],
        seeds: Sequence[Sequence[int]],
        sampling: Sampling,
        max_tokens: int,
        prompts: Prompts | None = None,
    ) -> list[list[list[int]]]:
        """Sample responses: for each question as many as it has seeds.

        Args:
            questions: Q questions.
            seeds: of each, one for each response.
            sampling: with temperature 0, the likeliest token is taken.
            max_tokens: where a response is cut.
            prompts: the questions', if they were read already.

        Returns:
            Of each question its responses as tokens; one that ended itself has its end token.
        """
        found: list[list[list[int]]] = [[] for _ in questions]
        size = max(1, ROWS_TOGETHER // max(map(len, seeds)))
        order = list(range(len(questions)))
        if len(order) > size:  # questions of one length together
            order.sort(key=lambda i: len(questions[i].question))
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            read = prompts or self.read([questions[i] for i in chosen])
            rows = torch.tensor(
                [i if prompts else row for row, i in enumerate(chosen) for _ in seeds[i]]
            )
            flat = [seed for i in chosen for seed in seeds[i]]
            tokens = iter(
                sample(
                    self.decoder,
                    self.model.lm_head,
                    read,
                    rows,
                    processors(sampling, self.forbidden),
                    seeds=flat if sampling.temperature else None,
                    end=self.end,
                    max_tokens=max_tokens,
                )
            )
            for i in chosen:
                found[i] = [next(tokens) for _ in seeds[i]]
        return found

    def decode(self, responses: Sequence[list[int]]) -> list[str]:
        """Their texts, without special tokens."""
        texts: list[str] = self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        return texts


def padded(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as (N, T), and the mask (N, T) of what they hold."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    tokens = torch.full(mask.shape, fill)
    tokens[mask] = torch.tensor([token for row in rows for token in row])
    return tokens, mask
