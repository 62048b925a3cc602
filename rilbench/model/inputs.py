"""What a student's processor and tokenizer say of its inputs; needs no verl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image


def picture_inputs(processor: Any, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """A model's inputs for pictures, as its processor makes them beside a text that shows them.

    Made by the processor and not by its image processor alone: InternVL's sets the tiling.
    """
    marks = processor.image_token * len(images)
    inputs = dict(processor(text=[marks], images=list(images), return_tensors="pt"))
    return {k: v for k, v in inputs.items() if k not in _OF_THE_TEXT}


_OF_THE_TEXT = ("input_ids", "attention_mask", "mm_token_type_ids")


def never_sampled(tokenizer: Any) -> list[int]:
    """Every special token but the end: a sampled placeholder would ask for a picture."""
    added = tokenizer.added_tokens_decoder.items()
    special = {number for number, token in added if token.special} | set(tokenizer.all_special_ids)
    return sorted(special - {tokenizer.eos_token_id})


def teacher_tokens(tokenizer: Any, response: str, max_tokens: int) -> list[int]:
    """A saved response in the student's tokens with the end token, cut at ``max_tokens``.

    The teacher's tokenizer may be any other. What looks like a special token of the student's,
    such as an image placeholder, is plain text here as it was there.
    """
    tokens = tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    return [*tokens, tokenizer.eos_token_id][:max_tokens]
