"""What a rollout server of a CPU runs: one model, and sampling by each response's own seed.

Without verl, which the server's process does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
)

from rilbench.config import Sampling
from rilbench.model.decoder import Decoder, can_decode
from rilbench.model.inputs import (
    end_turns_as_template,
    joined,
    never_sampled,
    picture_inputs,
)
from rilbench.model.sampling import SeededSampling, processors, sample

if TYPE_CHECKING:
    from rilbench.model.batch_server import Request


SCORED_TOGETHER = 16
"""Sequences whose logits are in memory at once."""


class Generator:
    """A model in float32 that answers batches of requests.

    Args:
        model: its folder.
        max_tokens: length at which a response is cut, unless its request says another.
    """

    def __init__(self, model: str, max_tokens: int) -> None:
        torch.set_num_threads(1)
        self.max_tokens = max_tokens
        self.model = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(model)
        tokenizer = self.processor.tokenizer
        end_turns_as_template(self.processor, tokenizer)
        self.end = tokenizer.eos_token_id
        self.pad = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.forbidden = never_sampled(tokenizer)
        self.image_token = self.model.config.image_token_id
        taken = signature(self.model.forward).parameters
        types = (name for name in ("mm_token_type_ids", "token_type_ids") if name in taken)
        self.token_types = next(types, "")
        self.decoder = Decoder(self.model.model) if can_decode(self.model) else None

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the policy's weights; every weight of the model must be among them."""
        report = self.model.load_state_dict(weights, strict=False)
        missing = [key for key in report.missing_keys if key != "lm_head.weight"]
        assert not missing, missing
        assert not report.unexpected_keys, report.unexpected_keys
        self.model.tie_weights()

    @torch.no_grad()
    def generate(self, batch: Sequence[Request]) -> list[tuple[list[int], bool]]:
        """Responses of requests with one way of sampling: tokens, and whether it ended itself."""
        asked = batch[0].sampling
        to_the_limit = bool(asked.get("ignore_eos"))
        sampling = Sampling(
            temperature=float(asked.get("temperature", 1.0)),
            top_p=float(asked.get("top_p", 1.0)),
            top_k=int(asked.get("top_k", -1)),
            repetition_penalty=float(asked.get("repetition_penalty", 1.0)),
        )
        steps = processors(sampling, self.forbidden)
        seeds = [int(each.sampling["seed"]) for each in batch] if sampling.temperature else None
        end = None if to_the_limit else self.end
        go_on = self._by_transformers if self.decoder is None else self._prompts_once
        limit = int(asked.get("max_tokens") or self.max_tokens)
        responses = go_on(batch, steps, seeds, end, limit)
        return [(tokens, tokens[-1] == self.end and not to_the_limit) for tokens in responses]

    @torch.no_grad()
    def log_probs(self, batch: Sequence[Request]) -> list[list[float]]:
        """Of each request's prompt, of n tokens, the log-probabilities of its last n - 1."""
        found = []
        for first in range(0, len(batch), SCORED_TOGETHER):
            some = batch[first : first + SCORED_TOGETHER]
            inputs = self._inputs(some)
            logits = self.model(**inputs).logits[:, :-1]
            tokens = inputs["input_ids"][:, 1:, None]
            scores = logits.gather(-1, tokens)[..., 0] - logits.logsumexp(-1)
            found += [
                row[len(row) - len(each.prompt) + 1 :].tolist()
                for row, each in zip(scores, some, strict=True)
            ]
        return found

    def _prompts_once(
        self,
        batch: Sequence[Request],
        steps: list[LogitsProcessor],
        seeds: list[int] | None,
        end: int | None,
        max_tokens: int,
    ) -> list[list[int]]:
        """Each prompt with its pictures is read once, however many responses it gets."""
        assert self.decoder is not None
        places: dict[tuple[Any, ...], int] = {}
        first: list[Request] = []
        rows = []
        for request in batch:
            pictures = ((image.size, image.tobytes()) for image in request.images)
            key = (*request.prompt, *pictures)
            if key not in places:
                places[key] = len(first)
                first.append(request)
            rows.append(places[key])
        return sample(
            self.decoder,
            self.model.lm_head,
            self.decoder.read(self._inputs(first)),
            torch.tensor(rows),
            steps,
            seeds=seeds,
            end=end,
            max_tokens=max_tokens,
        )

    def _by_transformers(
        self,
        batch: Sequence[Request],
        steps: list[LogitsProcessor],
        seeds: list[int] | None,
        end: int | None,
        max_tokens: int,
    ) -> list[list[int]]:
        """The same by ``generate``, for models that `Decoder` does not know."""
        inputs = self._inputs(batch)
        rows = self.model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=max_tokens,
            pad_token_id=self.pad,
            eos_token_id=end,
            suppress_tokens=None,
            logits_processor=LogitsProcessorList(
                steps if seeds is None else [*steps, SeededSampling(seeds)]
            ),
        )[:, inputs["input_ids"].shape[1] :].tolist()
        return [
            tokens[: tokens.index(end) + 1] if end is not None and end in tokens else tokens
            for tokens in rows
        ]

    def _inputs(self, batch: Sequence[Request]) -> dict[str, Any]:
        """The model's inputs for prompts, padded on the left."""
        width = max(len(each.prompt) for each in batch)
        padding = [width - len(each.prompt) for each in batch]
        ids = torch.tensor(
            [[self.pad] * n + each.prompt for n, each in zip(padding, batch, strict=True)]
        )
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": (torch.arange(width) >= torch.tensor(padding)[:, None]).long(),
        }
        if pictures := [picture_inputs(self.processor, r.images) for r in batch if r.images]:
            inputs |= joined(pictures)
        # Without the types, transformers gives picture tokens the positions of plain text, and
        # Gemma's do not see each other.
        if name := self.token_types:
            inputs[name] = (ids == self.image_token).int()
        return inputs
