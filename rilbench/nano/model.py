"""The small model: Qwen2.5-VL's own classes and layout at about 0.9M parameters.

`rilbench.nano.internvl` has its twin in InternVL3's layout; `make` builds either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rilbench.nano import tasks
from rilbench.nano.digits import pools
from rilbench.nano.render_images import CELL
from rilbench.nano.tasks import STAND_INS

if TYPE_CHECKING:
    from transformers import (
        InternVLForConditionalGeneration,
        InternVLProcessor,
        PreTrainedTokenizerFast,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
    )

    Model: TypeAlias = Qwen2_5_VLForConditionalGeneration | InternVLForConditionalGeneration
    Processor: TypeAlias = Qwen2_5_VLProcessor | InternVLProcessor

LAYOUTS = ("qwen2_5_vl", "internvl")
"""The ``model_type`` of each layout that `make` builds."""
VOCABULARY = 768
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of `VOCABULARY` tokens on questions and answers.

    Each digit is a token of its own, as in Qwen2.5-VL. Any other text, in any script, still encodes
    (byte level).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(seed), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=1024,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _corpus(seed: int, size: int = 300) -> list[str]:
    from rilbench.ril.discriminator import discriminator_messages

    rng = np.random.default_rng(seed)
    pool, texts = pools()["pretrain"], []
    for _ in range(size):
        for benchmark in STAND_INS:
            _, question = tasks.make_question(benchmark, pool, rng)
            texts += [question.prompt, question.worked, question.bare, "user\n", "assistant\n"]
    # The discriminator's own words too, so that its inputs stay short.
    words = [m["content"] for m in discriminator_messages("")]
    return texts + words * size


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    """Return Qwen2.5-VL's processor; each cell of a picture becomes one token."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    tokenizer.image_token, tokenizer.video_token = "<|image_pad|>", "<|video_pad|>"
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=CELL**2, max_pixels=16 * CELL**2),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokenizer.chat_template,
    )


def shared_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the settings that the model and its decoder have in common."""
    return {
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }


def text_config(tokenizer: PreTrainedTokenizerFast, rope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the decoder: hidden size 128, 3 layers of 4 heads."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": dict(rope),
        "bos_token_id": None,
        **shared_config(tokenizer),
    }


def initialise(kind: Any, config: Any, placeholders: Sequence[int], seed: int) -> Any:
    """Return a randomly initialised model that never samples one of the placeholder tokens."""
    import torch

    torch.manual_seed(seed)
    model = kind(config).float()
    # A sampled placeholder would make the next forward pass look for its picture.
    model.generation_config.suppress_tokens = list(placeholders)
    return model


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen2_5_VLForConditionalGeneration:
    """Return a randomly initialised model; the vision tower has 2 layers of hidden size 64."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config=text_config(tokenizer, rope),
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        **shared_config(tokenizer),
    )
    special = [ids(token) for token in SPECIAL if token != tokenizer.eos_token]
    model: Qwen2_5_VLForConditionalGeneration = initialise(
        Qwen2_5_VLForConditionalGeneration, config, special, seed
    )
    return model


def make(layout: str, vocabulary_seed: int, seed: int) -> tuple[Model, Processor]:
    """Return a new model of one of the `LAYOUTS` and its processor."""
    from rilbench.nano import internvl

    assert layout in LAYOUTS, layout
    tokenizer = train_tokenizer(vocabulary_seed)
    if layout == "internvl":
        tokenizer = internvl.with_media_tokens(tokenizer)
        return internvl.build_model(tokenizer, seed), internvl.build_processor(tokenizer)
    processor = build_processor(tokenizer)
    return build_model(tokenizer, seed), processor


def load(path: Path) -> tuple[Model, Processor]:
    """Load a checkpoint with transformers' ordinary classes."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(path)
