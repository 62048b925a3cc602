"""Sampling that depends on nothing but each response's own seed, and small models' fast sampling.

A question's prompt and pictures are computed once for all responses to it, and responses that have
ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)

from rilbench.config import Sampling
from rilbench.model.decoder import Decoder, Prompts
from rilbench.model.growing import Growing

KEPT_SHARE = 0.8
"""At which share of rows still going a batch in sampling gets smaller."""


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Turn greedy decoding into sampling by the Gumbel-max trick, one generator for each sequence.

    argmax(logits + Gumbel noise) is a sample of softmax(logits); its noise comes from its own
    seed, so it does not depend on the other sequences of its batch.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add noise to scores (B, V)."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + noise.to(scores.dtype)

    def keep(self, rows: Tensor) -> None:
        """Go on with these sequences alone."""
        self.generators = [self.generators[i] for i in rows.tolist()]


class Nucleus(LogitsProcessor):  # type: ignore[misc]
    """Top-k, then top-p among those k: transformers' two processors without sorting all tokens."""

    def __init__(self, top_k: int, top_p: float) -> None:
        self.top_k, self.top_p = top_k, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores (B, V) of all other tokens to minus infinity."""
        k = self.top_k if 0 < self.top_k < scores.shape[1] else scores.shape[1]
        best, index = scores.topk(k)
        if self.top_p < 1:
            # As transformers: from the least likely up, what sums to 1 - p goes; the best stays.
            tail = best.softmax(-1).flip(-1).cumsum(-1).flip(-1)
            gone = tail <= 1 - self.top_p
            gone[:, 0] = False
            best = best.masked_fill(gone, -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter_(1, index, best)


def processors(sampling: Sampling, forbidden: list[int]) -> list[LogitsProcessor]:
    """What changes the scores before a token is chosen, in transformers' order.

    Args:
        sampling: with temperature 0, the likeliest token is taken.
        forbidden: tokens that are never sampled.
    """
    steps: list[LogitsProcessor] = [SuppressTokensLogitsProcessor(forbidden)]
    if sampling.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature:
        steps.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k > 0 or sampling.top_p < 1:
            steps.append(Nucleus(sampling.top_k, sampling.top_p))
    return steps


@torch.no_grad()
def sample(
    decoder: Decoder,
    head: Callable[[Tensor], Tensor],
    prompts: Prompts,
    rows: Tensor,
    steps: Sequence[LogitsProcessor],
    *,
    seeds: Sequence[int] | None,
    end: int | None,
    max_tokens: int,
) -> list[list[int]]:
    """Responses to prompts, as transformers' ``generate`` gives them.

    Args:
        decoder: the model's.
        head: its language head.
        prompts: of the decoder's `Decoder.read`.
        rows: (N,) the prompt of each response.
        steps: of `processors`.
        seeds: of each response; None for the likeliest tokens.
        end: the token that ends a response; None to go on to the limit.
        max_tokens: where a response is cut.

    Returns:
        Each response's tokens; one that ended itself has its end token.
    """
    responses: list[list[int]] = [[] for _ in rows]
    alive = torch.arange(len(rows))  # the response of each row
    going = torch.ones(len(rows), dtype=torch.bool)
    noise = None if seeds is None else SeededSampling(seeds)
    growing = Growing(decoder, prompts, rows, max_tokens)
    seen = prompts.input_ids[rows]
    hidden = prompts.last_hidden[rows]
    for _ in range(max_tokens):
        scores = head(hidden)
        for process in steps:
            scores = process(seen, scores)
        if noise is not None:
            scores = noise(seen, scores)
        chosen = scores.argmax(-1)
        found = zip(alive.tolist(), chosen.tolist(), going.tolist(), strict=True)
        for row, token, goes in found:
            if goes:
                responses[row].append(token)
        if end is not None:
            going &= chosen != end
        if not going.any():
            break
        seen = torch.cat([seen, chosen[:, None]], 1)
        # Fewer rows are worth a copy of their keys and values only when many have ended.
        if going.sum() <= KEPT_SHARE * len(going):
            kept = going.nonzero()[:, 0]
            growing.keep(kept)
            alive, chosen, seen, going = alive[kept], chosen[kept], seen[kept], going[kept]
            if noise is not None:
                noise.keep(kept)
        hidden = growing.add(chosen)
    return responses
