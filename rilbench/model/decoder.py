"""A decoder of Qwen's kind on packed tokens, with the weights of transformers' modules.

The lab's models are so small that transformers spends most of its time on padding and on many small
operations. Here all layers but attention see the tokens of all rows as one list, without padding,
and a prompt's keys and values are computed once for all responses to it. Gradients land in
transformers' parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor

PARTS = 3
"""In so many parts are rows attended to, from the shortest to the longest: less padding."""

_PICTURES = ("pixel_values", "image_grid_thw", "image_sizes", "batch_num_images")
"""Inputs that are of the pictures alone."""

Attend = Callable[[int, Tensor, Tensor, Tensor, bool], Tensor]
"""A layer's attention: its number, queries, keys and values (n, heads, d) → (n, H).

Asked for the ends only, it gives (N, H) at the last token of each row."""


class Layer(NamedTuple):
    """A layer's weights; those that read the same input are one matrix."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Prompts:
    """Q prompts of P tokens, padded on the left, as far as a response needs them."""

    input_ids: Tensor
    """(Q, P)."""
    mask: Tensor
    """(Q, P) bool, False at padding."""
    layers: tuple[Layer, ...]
    """The weights that they were computed with."""
    keys_values: tuple[tuple[Tensor, Tensor], ...]
    """Of each layer, (Q, heads, P, head size) each."""
    next_position: Tensor
    """(Q,) of the first response token; behind pictures it is not the number of tokens."""
    last_hidden: Tensor
    """(Q, H) at the prompt's last token, from which the first response token is predicted."""


def can_decode(model: Any) -> bool:
    """Whether `Decoder` computes a model's decoder: Qwen2's layers, in Qwen2.5-VL and InternVL."""
    text = model.get_decoder()
    known = type(text).__name__ in ("Qwen2_5_VLTextModel", "Qwen2Model")
    rope = text.config.rope_parameters or {}
    plain_rope = rope.get("rope_type", "default") == "default"
    return known and plain_rope and set(text.config.layer_types) == {"full_attention"}


class Decoder:
    """A model's decoder, which reads prompts once and goes on from them.

    Args:
        body: a model of transformers without its head: Qwen2.5-VL, InternVL, or their text models.
    """

    def __init__(self, body: Any) -> None:
        self.body = body
        self.text = getattr(body, "language_model", body)
        config = self.text.config
        self.queries, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.size: int = config.hidden_size // self.queries
        self.eps: float = config.rms_norm_eps
        sections = config.rope_parameters.get("mrope_section")
        self.axes = (
            None if sections is None else torch.arange(3).repeat_interleave(torch.tensor(sections))
        )
        """Which of a token's three positions turns which pair of channels."""

    def read(self, inputs: dict[str, Tensor], positions: Tensor | None = None) -> Prompts:
        """Compute prompts from the processor's inputs; with gradient unless it is off.

        Args:
            inputs: padded on the left.
            positions: (Q, P) or (3, Q, P); None for the model's own.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        if positions is None:
            positions = self._positions(inputs)
        packed = ids[mask]
        hidden = self.text.embed_tokens(packed)
        if "pixel_values" in inputs:
            pictures = {k: inputs[k] for k in _PICTURES if k in inputs}
            found = self.body.get_image_features(**pictures).pooler_output
            found = found if isinstance(found, Tensor) else torch.cat(list(found))
            is_picture = packed == self.body.config.image_token_id
            hidden = hidden.masked_scatter(is_picture[:, None], found)
        sees = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril() & mask[:, None]
        rows = _Rows(mask, sees)
        keys_values: list[tuple[Tensor, Tensor]] = []

        def attend(_: int, query: Tensor, key: Tensor, value: Tensor, ends_only: bool) -> Tensor:
            keys_values.append((rows.padded(key), rows.padded(value)))
            return rows.attend(query, *keys_values[-1], ends_only)

        layers = self._weights()
        last_hidden = self.run(layers, hidden, positions[..., mask], attend, rows.ends)
        following = (positions.amax(0) if positions.ndim == 3 else positions).amax(1) + 1
        return Prompts(ids, mask, layers, tuple(keys_values), following, last_hidden)

    def go_on(
        self, prompts: Prompts, rows: Tensor, tokens: Tensor, mask: Tensor, last_only: bool = False
    ) -> Tensor:
        """Hidden states (n, H) of the n tokens behind prompts, row by row.

        Args:
            prompts: of `read`.
            rows: (N,) the prompt of each row.
            tokens: (N, T), padded on the right, best from the shortest row to the longest.
            mask: (N, T) bool, False at padding.
            last_only: (N, H) at the last token of each row alone.
        """
        parts = []
        for own, kept in zip(rows.tensor_split(PARTS), mask.tensor_split(PARTS), strict=True):
            if kept.any():
                kept = kept[:, : int(kept.sum(1).max())]
                width = kept.shape[1]
                causal = torch.ones(width, width, dtype=torch.bool).tril()
                before = prompts.mask[own, None].expand(-1, width, -1)
                sees = torch.cat([before, causal.expand(len(own), -1, -1)], -1)
                parts.append((own, _Rows(kept, sees)))
        sizes = [len(part.places) for _, part in parts]

        def attend(
            layer: int, query: Tensor, key: Tensor, value: Tensor, ends_only: bool
        ) -> Tensor:
            found, past = [], prompts.keys_values[layer]
            several = [torch.split(each, sizes) for each in (query, key, value)]
            for (own, part), asked, *new in zip(parts, *several, strict=True):
                keys, values = (
                    torch.cat([before.index_select(0, own), part.padded(each)], 2)
                    for before, each in zip(past, new, strict=True)
                )
                found.append(part.attend(asked, keys, values, ends_only))
            return torch.cat(found)

        hidden = self.text.embed_tokens(tokens[mask])
        positions = (prompts.next_position[rows, None] + torch.arange(tokens.shape[1]))[mask]
        ends = mask.sum(1).cumsum(0) - 1 if last_only else None
        return self.run(prompts.layers, hidden, positions, attend, ends)

    def _positions(self, inputs: dict[str, Tensor]) -> Tensor:
        """Behind a picture M-RoPE's positions are not the number of tokens."""
        mask = inputs["attention_mask"]
        if self.axes is None or "image_grid_thw" not in inputs:
            return (mask.cumsum(-1) - 1).clamp(min=0)
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
        found: Tensor = self.body.get_rope_index(**{name: inputs[name] for name in names})[0]
        return found

    def _weights(self) -> tuple[Layer, ...]:
        found = []
        for layer in self.text.layers:
            attention, mlp = layer.self_attn, layer.mlp
            projections = (attention.q_proj, attention.k_proj, attention.v_proj)
            qkv = torch.cat([each.weight for each in projections])
            bias = torch.cat([each.bias for each in projections])
            found.append(
                Layer(
                    layer.input_layernorm.weight,
                    self._paired(qkv),
                    self._paired(bias),
                    attention.o_proj.weight,
                    layer.post_attention_layernorm.weight,
                    torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
                    mlp.down_proj.weight,
                )
            )
        return tuple(found)

    def _paired(self, weight: Tensor) -> Tensor:
        """The rows of queries and keys in another order, which leaves their products as they are.

        Of a head, RoPE turns channels i and i + size / 2 together: now they are neighbours, and
        turning them is a product of complex numbers.
        """
        count = (self.queries + self.keys) * self.size
        halves = weight[:count].reshape(self.queries + self.keys, 2, self.size // 2, -1)
        neighbours = halves.transpose(1, 2).reshape(weight[:count].shape)
        return torch.cat([neighbours, weight[count:]])

    def run(
        self,
        layers: tuple[Layer, ...],
        hidden: Tensor,
        positions: Tensor,
        attend: Attend,
        ends: Tensor | None,
    ) -> Tensor:
        """All layers on embeddings (n, H); positions are (n,) or (3, n).

        With ``ends``, the last layer's attention gives these tokens alone, which are all that is
        returned.
        """
        if positions.ndim == 2 and self.axes is not None:
            positions = positions[self.axes].T
        else:
            positions = positions[:, None]
        angles = positions * self.text.rotary_emb.inv_freq
        turn = torch.polar(torch.ones_like(angles), angles)[:, None]
        turning = (self.queries + self.keys) * self.size
        for number, layer in enumerate(layers):
            normed = F.rms_norm(hidden, hidden.shape[-1:], layer.norm, self.eps)
            mixed = F.linear(normed, layer.qkv, layer.qkv_bias)
            pairs = mixed[:, :turning].view(len(mixed), -1, self.size // 2, 2)
            turned = torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2)
            query, key = turned[:, : self.queries], turned[:, self.queries :]
            value = mixed[:, turning:].view(len(mixed), -1, self.size)
            ends_only = ends is not None and number == len(layers) - 1
            context = attend(number, query, key, value, ends_only)
            if ends_only:
                hidden = hidden[ends]
            hidden = hidden + F.linear(context, layer.out)
            normed = F.rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, self.eps)
            gate, up = F.linear(normed, layer.gate_up).chunk(2, -1)
            hidden = hidden + F.linear(F.silu(gate) * up, layer.down)
        return F.rms_norm(hidden, hidden.shape[-1:], self.text.norm.weight, self.eps)


def added_to_scores(sees: Tensor) -> Tensor:
    """What attention adds to its scores: nothing where a query sees a key."""
    return torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)


class _Rows:
    """N rows of T places between packed tokens and attention.

    Args:
        mask: (N, T) bool, which places hold a token; a row without one is right as well.
        sees: (N, T, K) bool, which keys each place's query sees.
    """

    def __init__(self, mask: Tensor, sees: Tensor) -> None:
        count = mask.flatten().cumsum(0)
        self.shape = mask.shape
        self.places = mask.flatten().nonzero()[:, 0]
        # Padding gets what a token beside it has: its keys are masked, its results not read.
        self.source = (count - 1).clamp_(min=0)
        self.ends = mask.sum(1).cumsum(0) - 1
        # A query at padding may see nothing, and a softmax of nothing is NaN.
        self.added = added_to_scores((sees | ~mask[..., None])[:, None])
        self.added_at_ends = self.added.flatten(0, 2)[self.places[self.ends], None, None]

    def padded(self, packed: Tensor) -> Tensor:
        """(N, heads, T, d) of (n, heads, d)."""
        rows = packed.index_select(0, self.source)
        return rows.view(*self.shape, *packed.shape[1:]).transpose(1, 2)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, ends_only: bool) -> Tensor:
        """(n, H) of queries (n, heads, d), or (N, H) of the last one of each row.

        Args:
            query: packed.
            keys: (N, fewer heads, K, d).
            values: the same.
            ends_only: as said.
        """
        if ends_only:
            query, added = query.index_select(0, self.ends)[:, :, None], self.added_at_ends
        else:
            query, added = self.padded(query), self.added
        found = F.scaled_dot_product_attention(
            query, keys, values, attn_mask=added, enable_gqa=True
        )
        found = found.transpose(1, 2).flatten(0, 1).flatten(1)
        return found if ends_only else found.index_select(0, self.places)
