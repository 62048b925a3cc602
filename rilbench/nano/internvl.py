"""The stand-in model in InternVL3's layout: transformers' own classes, about 0.9M parameters.

A tile is one cell of a picture, so that InternVL's tiling cuts a picture into its cells: each is
one token after pixel shuffle, and a picture of several has one more for its thumbnail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    """Add InternVL3's tokens after the laboratory's vocabulary, as InternVL3 adds them to Qwen's.

    The words keep their numbers. Its chat template breaks the line after a picture.
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
    """InternVL's processor around a tokenizer that has its tokens."""
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor

    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": CELL, "width": CELL}),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=tokenizer.chat_template,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> InternVLForConditionalGeneration:
    """A randomly initialised model: hidden 128, 3 layers of 4 heads; vision 2 layers of 64."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    common: dict[str, Any] = {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "bos_token_id": None,
            **common,
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
        **common,
    )
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config).float()
    # Sampling must never write a placeholder: the next forward would look for its picture.
    model.generation_config.suppress_tokens = [
        i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id
    ]
    return model
