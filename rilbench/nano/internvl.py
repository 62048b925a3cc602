"""The small model in InternVL3's layout: transformers' own classes, about 0.9M parameters.

A tile is one cell of a picture, so that InternVL's tiling cuts a picture into its cells. Each cell
is one token after pixel shuffle, and a picture of several cells has one more for its thumbnail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rilbench.nano.render_images import CELL

if TYPE_CHECKING:
    from transformers import (
        InternVLForConditionalGeneration,
        InternVLProcessor,
        PreTrainedTokenizerFast,
    )

MEDIA = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""InternVL3's own tokens for pictures, by the names under which its processor looks for them."""

_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def with_media_tokens(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Add InternVL3's tokens after the vocabulary, as InternVL3 adds them to Qwen's.

    The ids of all words stay. The chat template breaks the line after a picture.
    """
    from transformers import PreTrainedTokenizerFast

    ends = (tokenizer.eos_token, tokenizer.pad_token)
    larger = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        additional_special_tokens=[t for t in tokenizer.all_special_tokens if t not in ends],
        model_max_length=tokenizer.model_max_length,
        **MEDIA,
    )
    assert _IMAGE in tokenizer.chat_template
    larger.chat_template = tokenizer.chat_template.replace(_IMAGE, "<IMG_CONTEXT>\n")
    return larger


def build_processor(tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    """Return InternVL's processor around a tokenizer that has its tokens."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": CELL, "width": CELL}),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=tokenizer.chat_template,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> InternVLForConditionalGeneration:
    """Return a randomly initialised model; its decoder is that of `rilbench.nano.model`."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    from rilbench.nano.model import initialise, shared_config, text_config

    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            **text_config(tokenizer, {"rope_type": "default", "rope_theta": 10000.0}),
        },
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "image_size": CELL,
            "patch_size": CELL // 2,
            "attention_bias": True,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
        **shared_config(tokenizer),
    )
    special = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    model: InternVLForConditionalGeneration = initialise(
        InternVLForConditionalGeneration, config, special, seed
    )
    return model
