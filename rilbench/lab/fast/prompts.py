"""A model that computes a question's prompt and pictures once for all of its responses.

The responses of a question differ, its prompt does not: its keys and values are computed once,
with gradient where one is wanted, and every response goes on from them. Right for any decoder of
transformers with a `DynamicCache`; the lab's are Qwen2.5-VL's and InternVL3's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)

from rilbench.config import Sampling
from rilbench.data.question import Question
from rilbench.train.verl.cpu_generation import Nucleus, SeededSampling
from rilbench.train.verl.student_inputs import never_sampled

ROWS_TOGETHER = 256
"""Responses that are sampled in one batch."""
PARTS = 3
"""Forward passes over a step's responses, from the shortest to the longest: less padding."""


@dataclass(frozen=True)
class Prompts:
    """Q prompts of P tokens, padded on the left, as far as a response needs them."""

    input_ids: Tensor
    """(Q, P)."""
    mask: Tensor
    """(Q, P), 0 at padding."""
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    """Of each layer, (Q, heads, P, head size) each."""
    next_position: Tensor
    """(Q,) of the first response token; behind pictures it is not the number of tokens."""
    last_hidden: Tensor
    """(Q, H) at the prompt's last token, from which the first response token is predicted."""

    def cache(self, rows: Tensor) -> DynamicCache:
        """Keys and values for responses to the prompts ``rows`` (N,)."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.keys_values):
            cache.update(keys.index_select(0, rows), values.index_select(0, rows), layer)
        return cache


class Decoder:
    """A model's decoder, which reads prompts once and goes on from them.

    Args:
        body: gives hidden states: a model without its head.
        mrope: whether it takes three positions for each token.
    """

    def __init__(self, body: Any, mrope: bool) -> None:
        self.body, self.mrope = body, mrope

    def read(self, inputs: dict[str, Tensor], position_ids: Tensor) -> Prompts:
        """Compute prompts from the processor's inputs; positions are (Q, P) or (3, Q, P)."""
        output = self.body(**inputs, position_ids=position_ids, past_key_values=DynamicCache())
        layers = output.past_key_values.layers
        positions = position_ids.amax(0) if position_ids.ndim == 3 else position_ids
        return Prompts(
            inputs["input_ids"],
            inputs["attention_mask"],
            tuple((layer.keys, layer.values) for layer in layers),
            positions.amax(1) + 1,
            output.last_hidden_state[:, -1],
        )

    def go_on(
        self, prompts: Prompts, rows: Tensor, tokens: Tensor, mask: Tensor, cache: DynamicCache
    ) -> Tensor:
        """Hidden states (N, T, H) of tokens (N, T) that follow what the cache holds.

        Args:
            prompts: those of the cache.
            rows: (N,) the prompt of each response.
            tokens: (N, T).
            mask: (N, more than T) of all positions so far, the prompt's and these tokens' included.
            cache: of `Prompts.cache`; it takes the tokens in.
        """
        past = mask.shape[1] - tokens.shape[1] - prompts.mask.shape[1]
        positions = prompts.next_position[rows, None] + torch.arange(past, past + tokens.shape[1])
        if self.mrope:
            positions = positions.expand(3, -1, -1)
        output = self.body(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


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
        self.decoder = Decoder(self.model.model, hasattr(self.model.model, "get_rope_index"))

    def save(self, folder: Path) -> None:
        """Write a checkpoint that transformers loads."""
        self.model.save_pretrained(folder)
        self.inputs.processor.save_pretrained(folder)

    def read(self, questions: Sequence[Question]) -> Prompts:
        """Compute the questions' prompts with their pictures; with gradient unless it is off."""
        inputs = self.inputs(questions)
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if self.decoder.mrope:
            positions, _ = self.model.model.get_rope_index(
                inputs["input_ids"],
                mm_token_type_ids=inputs["mm_token_type_ids"],
                image_grid_thw=inputs["image_grid_thw"],
                attention_mask=inputs["attention_mask"],
            )
        return self.decoder.read(inputs, positions)

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
        tokens, mask = padded(responses, self.end)
        found = torch.zeros(tokens.shape)
        for part in in_parts(mask.sum(1)):
            width = int(mask[part].sum(1).max())
            target, kept = tokens[part, :width], mask[part, :width]
            # A token is predicted from the hidden state before it; the last one is not read.
            hidden = [prompts.last_hidden[rows[part], None]]
            if width > 1:
                seen = torch.cat([prompts.mask[rows[part]], kept[:, 1:].long()], 1)
                cache = prompts.cache(rows[part])
                hidden.append(self.decoder.go_on(prompts, rows[part], target[:, :-1], seen, cache))
            logits = self.model.lm_head(torch.cat(hidden, 1)[kept])
            log_probs = logits.log_softmax(-1).gather(-1, target[kept][:, None])[:, 0]
            places = kept.nonzero()
            found = found.index_put((part[places[:, 0]], places[:, 1]), log_probs)
        return found, mask

    @torch.no_grad()
    def sample(
        self,
        questions: Sequence[Question],
        seeds: Sequence[Sequence[int]],
        sampling: Sampling,
        max_tokens: int,
    ) -> list[list[list[int]]]:
        """Sample responses: for each question as many as it has seeds.

        Args:
            questions: Q questions.
            seeds: of each, one for each response.
            sampling: with temperature 0, the likeliest token is taken.
            max_tokens: where a response is cut.

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
            prompts = self.read([questions[i] for i in chosen])
            rows = torch.tensor([row for row, i in enumerate(chosen) for _ in seeds[i]])
            flat = [seed for i in chosen for seed in seeds[i]]
            tokens = iter(self._sample(prompts, rows, flat, sampling, max_tokens))
            for i in chosen:
                found[i] = [next(tokens) for _ in seeds[i]]
        return found

    def _sample(
        self,
        prompts: Prompts,
        rows: Tensor,
        seeds: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
    ) -> list[list[int]]:
        """Responses to the prompts ``rows``; a batch gets smaller as they end."""
        responses: list[list[int]] = [[] for _ in seeds]
        alive = torch.arange(len(rows))
        noise = None if sampling.temperature == 0 else SeededSampling(list(seeds))
        processors = self._processors(sampling)
        cache, mask = prompts.cache(rows), prompts.mask[rows]
        seen = prompts.input_ids[rows]
        hidden = prompts.last_hidden[rows]
        for _ in range(max_tokens):
            scores = processors(seen, self.model.lm_head(hidden))
            if noise is not None:
                scores = noise(seen, scores)
            chosen = scores.argmax(-1)
            for row, token in zip(alive.tolist(), chosen.tolist(), strict=True):
                responses[row].append(token)
            going = chosen != self.end
            if not going.any():
                break
            seen = torch.cat([seen, chosen[:, None]], 1)
            mask = torch.cat([mask, torch.ones(len(mask), 1, dtype=mask.dtype)], 1)
            if not going.all():
                kept = going.nonzero()[:, 0]
                cache.batch_select_indices(kept)
                alive, chosen, seen, mask = alive[kept], chosen[kept], seen[kept], mask[kept]
                if noise is not None:
                    noise.generators = [noise.generators[i] for i in kept.tolist()]
            hidden = self.decoder.go_on(prompts, rows[alive], chosen[:, None], mask, cache)[:, -1]
        return responses

    def _processors(self, sampling: Sampling) -> LogitsProcessorList:
        """What changes the scores before a token is chosen, in transformers' order."""
        steps = LogitsProcessorList([SuppressTokensLogitsProcessor(self.forbidden)])
        if sampling.repetition_penalty != 1:
            steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if sampling.temperature:
            steps.append(TemperatureLogitsWarper(sampling.temperature))
            steps.append(Nucleus(sampling.top_k, sampling.top_p))
        return steps

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


def in_parts(lengths: Tensor) -> Iterator[Tensor]:
    """Indices of rows (N,), in `PARTS` of about equal number, from the shortest to the longest."""
    yield from (part for part in lengths.argsort(stable=True).tensor_split(PARTS) if len(part))
