"""Responses while they are sampled: their keys and values, with room for the tokens to come."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor

from rilbench.model.decoder import Decoder, Prompts, added_to_scores


class Growing:
    """Responses that grow by one token at a time, all at once; without gradient.

    Args:
        decoder: the model's.
        prompts: of its `Decoder.read`.
        rows: (N,) the prompt of each response.
        room: the most tokens of a response.
    """

    def __init__(self, decoder: Decoder, prompts: Prompts, rows: Tensor, room: int) -> None:
        self.decoder, self.layers = decoder, prompts.layers
        self.positions, self.length = prompts.next_position[rows], prompts.mask.shape[1]
        self.added = F.pad(added_to_scores(prompts.mask[rows, None, None]), (0, room))
        self.keys_values = [
            [F.pad(each.index_select(0, rows), (0, 0, 0, room)) for each in pair]
            for pair in prompts.keys_values
        ]

    def add(self, tokens: Tensor) -> Tensor:
        """Hidden states (N, H) at each response's next token (N,)."""
        at, decoder = self.length, self.decoder
        self.length += 1
        added = self.added[..., : self.length]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, _: bool) -> Tensor:
            both = self.keys_values[layer]
            for buffer, new in zip(both, (key, value), strict=True):
                buffer[:, :, at] = new
            keys, values = (buffer[:, :, : self.length] for buffer in both)
            # Queries that share a key's head, as if they were tokens: keys need not be repeated.
            query = query.view(len(query), decoder.keys, -1, decoder.size)
            scores = query * decoder.size**-0.5 @ keys.transpose(2, 3) + added
            return torch.matmul(scores.softmax(-1), values).flatten(1)

        hidden = decoder.text.embed_tokens(tokens)
        hidden = decoder.run(self.layers, hidden, self.positions, attend, None)
        self.positions = self.positions + 1
        return hidden

    def keep(self, rows: Tensor) -> None:
        """Go on with these responses alone."""
        self.positions, self.added = self.positions[rows], self.added[rows]
        self.keys_values = [[each.index_select(0, rows) for each in p] for p in self.keys_values]
