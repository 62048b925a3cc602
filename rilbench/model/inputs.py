"""What a student's processor and tokenizer say of its inputs; needs no verl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image


def picture_inputs(processor: Any, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
    """A model's inputs for the pictures of one prompt, as its processor makes them beside a text.

    Made by the processor and not by its image processor alone: it may treat one picture otherwise
    than several, and InternVL's sets the tiling. Those of several prompts can be concatenated.
    """
    shown = [{"role": "user", "content": [{"type": "image"}] * len(images)}]
    text = processor.apply_chat_template(shown, tokenize=False)
    made = dict(processor(text=[text], images=list(images), return_tensors="pt"))
    inputs = {name: value for name, value in made.items() if name not in _OF_THE_TEXT}
    if "pixel_attention_mask" in inputs:  # SmolVLM's tiles stand in a row for each text
        return {name: value.transpose(0, 1) for name, value in inputs.items()}
    if "batch_num_images" in inputs:  # LLaVA-OneVision's are padded to the picture with the most
        inputs["pixel_values"] = _real_tiles(processor, inputs)
    return inputs


def joined(inputs: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The inputs of several prompts' pictures as those of a batch."""
    import torch

    names = {name: None for each in inputs for name in each}
    return {name: torch.cat([each[name] for each in inputs if name in each]) for name in names}


def _real_tiles(processor: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """LLaVA-OneVision's tiles (n, 3, h, w) of (pictures, most tiles, 3, h, w)."""
    import torch
    from transformers.models.llava_onevision.modeling_llava_onevision import (
        image_size_to_num_patches,
    )

    tiles, maker = inputs["pixel_values"], processor.image_processor
    tiled = [int(n) == 1 for n in inputs["batch_num_images"] for _ in range(int(n))]
    counts = [
        image_size_to_num_patches(size, maker.image_grid_pinpoints, tiles.shape[-1]) if cut else 1
        for size, cut in zip(inputs["image_sizes"], tiled, strict=True)
    ]
    return torch.cat([each[:count] for each, count in zip(tiles, counts, strict=True)])


_OF_THE_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


def end_turns_as_template(processor: Any, *tokenizers: Any) -> None:
    """Make the end token of tokenizers the one that ends a response in the chat template.

    A released tokenizer may name another: Gemma's is the end of a document, while its turns end
    with ``<end_of_turn>``; GLM-V's turns end with the ``<|user|>`` of the next.

    Args:
        processor: of the student.
        tokenizers: those to change, its own among them.
    """
    response = "a response"
    turns = [("user", "a"), ("assistant", response), ("user", "b")]
    messages = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in turns]
    _, _, after = processor.apply_chat_template(messages, tokenize=False).partition(response)
    tokens = processor.tokenizer(after, add_special_tokens=False)["input_ids"]
    special = _special_tokens(processor.tokenizer)
    end = next((token for token in tokens if token in special), None)
    if end is not None:
        for tokenizer in tokenizers:
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)


def never_sampled(tokenizer: Any) -> list[int]:
    """Every special token but the end: a sampled placeholder would ask for a picture."""
    return sorted(_special_tokens(tokenizer) - {tokenizer.eos_token_id})


def _special_tokens(tokenizer: Any) -> set[int]:
    added = tokenizer.added_tokens_decoder.items()
    return {number for number, token in added if token.special} | set(tokenizer.all_special_ids)


def teacher_tokens(tokenizer: Any, response: str, max_tokens: int) -> list[int]:
    """A saved response in the student's tokens with the end token, cut at ``max_tokens``.

    The teacher's tokenizer may be any other. What looks like a special token of the student's,
    such as an image placeholder, is plain text here as it was there.
    """
    tokens = tokenizer.encode(response, add_special_tokens=False, split_special_tokens=True)
    return [*tokens, tokenizer.eos_token_id][:max_tokens]


def cut_response(tokenizer: Any, response: str, max_tokens: int) -> str:
    """A saved response's text as the loop has it, cut at ``max_tokens``."""
    tokens = teacher_tokens(tokenizer, response, max_tokens)
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    return text
