"""A question's prompt and pictures, computed once for all responses to it.

The responses of a group differ, their prompt does not. A micro-batch is one sequence of tokens, in
which a prompt stands once, before its responses:

    prompt 1 | response | response | … | prompt 2 | response | …

Every layer but attention treats its tokens apart. Attention is split: a prompt's tokens see the
prompt up to themselves, a response's tokens the whole prompt and the response up to themselves.
What comes out, and its gradient, is that of whole rows. The vision tower sees a picture once, and
the head only the places that predict a response's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rilbench.devices import flash_attention_version
from rilbench.model.varlen import flash_attn_varlen_func

ATTENTION = "shared_prompts"
"""Its name among transformers' attention functions."""

PARTS = 3
"""On a CPU, responses are attended to in so many parts by length, so that little is padded."""


@dataclass(frozen=True)
class SharedPrompts:
    """Where the tokens of a micro-batch stand, in verl's rows and in the one sequence.

    verl's N rows stand one after another, each a prompt and a response: S tokens. The sequence has
    T ≤ S of them. Its segments are the prompts and the responses.
    """

    source: Tensor
    """(T,) which of the rows' tokens each token of the sequence is."""
    keys: Tensor
    """Which tokens of the sequence each segment's queries see, segment by segment."""
    query_lengths: list[int]
    """Tokens of each segment."""
    key_lengths: list[int]
    """Tokens that its last one sees."""
    responses: Tensor
    """(n,) places in the sequence of the n tokens of all responses."""
    predicting: Tensor
    """(n,) places in the sequence that predict them."""
    predicted: Tensor
    """(n,) the rows' token before each of these, where verl expects what was predicted."""
    first_rows: list[int]
    """The first row of each prompt."""

    @classmethod
    def of(
        cls, prompts: Sequence[int], responses: Sequence[int], questions: Sequence[int]
    ) -> SharedPrompts:
        """Lay out rows, of which neighbours with one question share its prompt.

        Args:
            prompts: tokens of each row's prompt.
            responses: tokens of each row's response.
            questions: the question of each row.
        """
        source, keys, own_places, predicting, predicted = [], [], [], [], []
        queries: list[int] = []
        seen: list[int] = []
        first_rows: list[int] = []
        row_start = end = prompt_start = 0
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            if row == 0 or questions[row] != questions[row - 1]:
                prompt_start = end
                first_rows.append(row)
                source.append(torch.arange(row_start, row_start + prompt))
                keys.append(torch.arange(end, end + prompt))
                queries.append(prompt)
                seen.append(prompt)
                end += prompt
            response_start = row_start + prompt
            source.append(torch.arange(response_start, response_start + response))
            whole_prompt = torch.arange(prompt_start, prompt_start + prompt)
            own = torch.arange(end, end + response)
            keys += [whole_prompt, own]
            own_places.append(own)
            queries.append(response)
            seen.append(prompt + response)
            predicting.append(torch.cat([whole_prompt[-1:], own])[:-1])
            predicted.append(torch.arange(response_start - 1, response_start + response - 1))
            end += response
            row_start = response_start + response
        return cls(
            source=torch.cat(source),
            keys=torch.cat(keys),
            query_lengths=queries,
            key_lengths=seen,
            responses=torch.cat(own_places),
            predicting=torch.cat(predicting),
            predicted=torch.cat(predicted),
            first_rows=first_rows,
        )

    def to(self, device: Any) -> SharedPrompts:
        """The same on a device."""
        names = ("source", "keys", "responses", "predicting", "predicted")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    @cached_property
    def padded(self) -> PaddedSegments:
        """The segments as a CPU attends to them."""
        return PaddedSegments.of(self.keys, self.query_lengths, self.key_lengths)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Split attention.

        Args:
            query: (T, H, D); ``key`` and ``value``: (T, H_k, D), where H_k divides H.
            key: see above.
            value: see above.
            scale: what scores are multiplied by; 1/√D by default.

        Returns:
            (T, H, D).
        """
        if query.is_cuda:
            starts, key_starts = (
                F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int().to(query.device)
                for lengths in (self.query_lengths, self.key_lengths)
            )
            found: Tensor = _packed_kernel()(
                query,
                key[self.keys],
                value[self.keys],
                starts,
                key_starts,
                max(self.query_lengths),
                max(self.key_lengths),
                softmax_scale=scale,
                causal=True,  # the last query sees the last key, the one before it one less
            )
            return found
        return self.padded.attend(query, key, value, scale)


def _packed_kernel() -> Callable[..., Tensor]:
    """flash-attn's where it is installed, else torch's own."""
    if flash_attention_version() is None:
        return flash_attn_varlen_func
    from flash_attn import flash_attn_varlen_func as installed  # type: ignore[import-not-found]

    kernel: Callable[..., Tensor] = installed
    return kernel


@dataclass(frozen=True)
class PaddedSegments:
    """The segments as a few padded batches: a CPU's attention is slow on one segment at a time."""

    parts: list[tuple[Tensor, Tensor, Tensor]]
    """Of N segments each: queries (N, Q) and keys (N, K) in the sequence, with padding, and what
    is added to the scores (N, 1, Q, K)."""
    results: Tensor
    """(T,) where among all results of the parts each token's stands."""

    @classmethod
    def of(
        cls, keys: Tensor, query_lengths: Sequence[int], key_lengths: Sequence[int]
    ) -> PaddedSegments:
        """Group segments by kind and length."""
        starts, key_starts = _starts(query_lengths), _starts(key_lengths)
        lengths, seen = torch.tensor(query_lengths), torch.tensor(key_lengths)
        is_prompt = lengths == seen
        prompts = is_prompt.nonzero()[:, 0]
        responses = (~is_prompt).nonzero()[:, 0]
        responses = responses[lengths[responses].argsort(stable=True)]
        parts, results = [], torch.empty(int(lengths.sum()), dtype=torch.long)
        before = 0
        for segments in (prompts, *responses.tensor_split(PARTS)):
            if not len(segments):
                continue
            length, key_length = lengths[segments, None], seen[segments, None]
            place, key_place = torch.arange(int(length.max())), torch.arange(int(key_length.max()))
            is_token = place < length
            # Padding reads a token of its own segment; its result goes nowhere.
            queries = starts[segments, None] + place.minimum(length - 1)
            key_index = keys[key_starts[segments, None] + key_place.minimum(key_length - 1)]
            sees = key_place <= (key_length - length + place)[..., None]
            added = torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)[:, None]
            parts.append((queries, key_index, added))
            results[queries[is_token]] = before + is_token.flatten().nonzero()[:, 0]
            before += queries.numel()
        return cls(parts, results)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """As `SharedPrompts.attend`."""
        found = []
        for queries, keys, added in self.parts:
            attended = F.scaled_dot_product_attention(
                query[queries].transpose(1, 2),
                key[keys].transpose(1, 2),
                value[keys].transpose(1, 2),
                attn_mask=added.to(query.dtype),
                scale=scale,
                enable_gqa=True,
            )
            found.append(attended.transpose(1, 2).flatten(0, 1))
        return torch.cat(found)[self.results]


def cut_by_tokens(
    prompts: Sequence[int], responses: Sequence[int], questions: Sequence[int], budget: int
) -> list[list[int]]:
    """Cut rows into micro-batches of at most ``budget`` tokens, each question's prompt once.

    Args:
        prompts: tokens of each row's prompt.
        responses: tokens of each row's response.
        questions: the question of each row.
        budget: not less than a prompt and its longest response.

    Returns:
        The rows of each micro-batch, in their order.
    """
    parts: list[list[int]] = []
    tokens = 0
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        shares = row > 0 and questions[row] == questions[row - 1]
        tokens += response if shares else prompt + response
        if not parts or tokens > budget:
            parts.append([])
            tokens = prompt + response
        parts[-1].append(row)
    return parts


def cut_further(parts: list[list[int]], number: int) -> list[list[int]]:
    """Cut the parts with the most rows in two until there are ``number``.

    Every rank needs as many: FSDP's ranks go through their forwards together.
    """
    while len(parts) < number:
        largest = max(range(len(parts)), key=lambda i: len(parts[i]))
        rows = parts[largest]
        middle = -(-len(rows) // 2)
        parts = [*parts[:largest], rows[:middle], rows[middle:], *parts[largest + 1 :]]
    return parts


def _starts(lengths: Sequence[int]) -> Tensor:
    """(N,) where each of N segments begins."""
    return F.pad(torch.tensor(lengths).cumsum(0), (1, 0))[:-1]


def shared_prompts_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prompts: SharedPrompts,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: (1, H, T, D) over (1, H_k, T, D) → (1, T, H, D)."""
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    return shared_prompts.attend(query, key, value, scaling)[None], None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, shared_prompts_attention)
