"""Tiny, untrained students of every layout, made offline: ``write_layout(name, folder)``.

Each is built by the layout's own classes in the installed transformers, with the nano student's
words, and with the layout's own tokens for a picture. ``python layouts.py NAME FOLDER`` as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, LAYERS = 64, 2
NOISY = 0.1  # of initial weights, so that untrained ones care for the picture


def _tokenizer(mark: str, *others: str, **named: str) -> Any:
    """The nano student's, with a layout's own special tokens; ``mark`` stands for a picture."""
    from transformers import AutoProcessor, PreTrainedTokenizerFast

    from rilbench.paths import locate

    nano = AutoProcessor.from_pretrained(locate("nano:restyled"))
    old = nano.tokenizer
    ends = (old.eos_token, old.pad_token)
    special = [token for token in old.all_special_tokens if token not in ends]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=old.backend_tokenizer,
        eos_token=old.eos_token,
        pad_token=old.pad_token,
        additional_special_tokens=[*special, *others],
        model_max_length=2048,
        **named,
    )
    template = nano.chat_template
    assert QWEN_MARK in template
    tokenizer.chat_template = template.replace(QWEN_MARK, mark)
    return tokenizer


QWEN_MARK = "<|vision_start|><|image_pad|><|vision_end|>"


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "initializer_range": NOISY,
        "bos_token_id": None,
        "tie_word_embeddings": True,
        **_ends(tokenizer),
        **more,
    }


def _ends(tokenizer: Any) -> dict[str, int]:
    return {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}


def _mrope(*section: int, **more: Any) -> dict[str, Any]:
    return {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": list(section),
        **more,
    }


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    ids = tokenizer.convert_tokens_to_ids
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _qwen_tokenizer() -> Any:
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    return _tokenizer(QWEN_MARK, **names)


def _qwen_images(patch: int) -> Any:
    from transformers import Qwen2VLImageProcessor

    side = 2 * patch
    return Qwen2VLImageProcessor(patch_size=patch, min_pixels=side**2, max_pixels=16 * side**2)


def qwen2_vl() -> tuple[Any, Any]:
    """Qwen2-VL."""
    from transformers import Qwen2VLConfig, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    config = Qwen2VLConfig(
        text_config=_text(tokenizer, rope_parameters=_mrope(4, 6, 6)),
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": HIDDEN,
            "num_heads": 2,
            "mlp_ratio": 2,
            "initializer_range": NOISY,
        },
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
        **_ends(tokenizer),
    )
    return config, Qwen2VLProcessor(
        _qwen_images(14), tokenizer, Qwen2VLVideoProcessor(), tokenizer.chat_template
    )


def qwen2_5_vl() -> tuple[Any, Any]:
    """Qwen2.5-VL."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLVideoProcessor

    tokenizer = _qwen_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer, rope_parameters=_mrope(4, 6, 6)),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "initializer_range": NOISY,
        },
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
        **_ends(tokenizer),
    )
    return config, Qwen2_5_VLProcessor(
        _qwen_images(14), tokenizer, Qwen2VLVideoProcessor(), tokenizer.chat_template
    )


def _qwen3_vision() -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "num_position_embeddings": 64,
        "initializer_range": NOISY,
    }


def _qwen3_processor(tokenizer: Any) -> Any:
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    return Qwen3VLProcessor(
        _qwen_images(16), tokenizer, Qwen3VLVideoProcessor(), tokenizer.chat_template
    )


def qwen3_vl(experts: bool = False) -> tuple[Any, Any]:
    """Qwen3-VL."""
    from transformers import Qwen3VLConfig, Qwen3VLMoeConfig

    tokenizer = _qwen_tokenizer()
    rope = _mrope(6, 5, 5, mrope_interleaved=True)
    more = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = (Qwen3VLMoeConfig if experts else Qwen3VLConfig)(
        text_config=_text(
            tokenizer, head_dim=32, rope_parameters=rope, **(more if experts else {})
        ),
        vision_config={**_qwen3_vision(), "deepstack_visual_indexes": [0]},
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
        **_ends(tokenizer),
    )
    return config, _qwen3_processor(tokenizer)


def qwen3_vl_moe() -> tuple[Any, Any]:
    """Qwen3-VL with experts."""
    return qwen3_vl(experts=True)


def qwen3_5(experts: bool = False) -> tuple[Any, Any]:
    """Qwen3.5: linear attention, and full attention in the last layer."""
    from transformers import Qwen3_5Config, Qwen3_5MoeConfig

    tokenizer = _qwen_tokenizer()
    rope = _mrope(4, 2, 2, mrope_interleaved=True, partial_rotary_factor=0.5)
    more = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    config = (Qwen3_5MoeConfig if experts else Qwen3_5Config)(
        text_config=_text(
            tokenizer,
            head_dim=32,
            rope_parameters=rope,
            layer_types=["linear_attention", "full_attention"],
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            **(more if experts else {}),
        ),
        vision_config=_qwen3_vision(),
        tie_word_embeddings=True,
        **_qwen_ids(tokenizer),
        **_ends(tokenizer),
    )
    return config, _qwen3_processor(tokenizer)


def qwen3_5_moe() -> tuple[Any, Any]:
    """Qwen3.5 with experts."""
    return qwen3_5(experts=True)


def internvl(decoder: str = "qwen2") -> tuple[Any, Any]:
    """InternVL3 (-hf); InternVL3.5 has Qwen3's decoder."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    tokenizer = _tokenizer(
        "<IMG_CONTEXT>\n",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        text_config={
            "model_type": decoder,
            **_text(tokenizer, **({"head_dim": 32} if decoder == "qwen3" else {})),
        },
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "attention_bias": True,
            "initializer_range": NOISY,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=1,
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )
    return config, InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=tokenizer.chat_template,
    )


def internvl3_5() -> tuple[Any, Any]:
    """InternVL3.5 (-hf)."""
    return internvl("qwen3")


def _glm_tokenizer() -> Any:
    return _tokenizer(
        "<|begin_of_image|><|image|><|end_of_image|>",
        *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
        *("<|user|>", "<|observation|>"),  # verl asks for them
        image_token="<|image|>",
        video_token="<|video|>",
    )


def _glm_config(tokenizer: Any) -> dict[str, Any]:
    ids = tokenizer.convert_tokens_to_ids
    rope = _mrope(4, 6, 6, partial_rotary_factor=1.0)
    return {
        "text_config": _text(tokenizer, rope_parameters=rope),
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": HIDDEN,
            "image_size": 112,
            "initializer_range": NOISY,
        },
        "image_token_id": ids("<|image|>"),
        "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"),
        "video_end_token_id": ids("<|end_of_video|>"),
        "tie_word_embeddings": True,
        **_ends(tokenizer),
    }


def glm4v() -> tuple[Any, Any]:
    """GLM-4.1V."""
    from transformers import Glm4vConfig, Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

    tokenizer = _glm_tokenizer()
    size = {"shortest_edge": 28 * 28 * 2, "longest_edge": 16 * 28 * 28 * 2}
    return Glm4vConfig(**_glm_config(tokenizer)), Glm4vProcessor(
        Glm4vImageProcessor(size=size), tokenizer, Glm4vVideoProcessor(), tokenizer.chat_template
    )


def glm4v_moe() -> tuple[Any, Any]:
    """GLM-4.5V."""
    from transformers import Glm4vMoeConfig

    _, processor = glm4v()
    known = _glm_config(processor.tokenizer)
    known["text_config"] |= {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_shared_experts": 1,
        "head_dim": 32,
    }
    return Glm4vMoeConfig(**known), processor


def glm46v() -> tuple[Any, Any]:
    """GLM-4.6V."""
    from transformers import (
        Glm46VConfig,
        Glm46VImageProcessor,
        Glm46VProcessor,
        Glm46VVideoProcessor,
    )

    tokenizer = _glm_tokenizer()
    known = _glm_config(tokenizer)
    known["text_config"]["model_type"] = "glm4v_text"
    known["vision_config"]["model_type"] = "glm4v_vision"
    size = {"shortest_edge": 28 * 28 * 2, "longest_edge": 16 * 28 * 28 * 2}
    return Glm46VConfig(**known), Glm46VProcessor(
        Glm46VImageProcessor(size=size), tokenizer, Glm46VVideoProcessor(), tokenizer.chat_template
    )


def gemma3() -> tuple[Any, Any]:
    """Gemma 3."""
    from transformers import Gemma3Config, Gemma3ImageProcessor, Gemma3Processor

    tokenizer = _tokenizer(
        "<start_of_image>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=_text(
            tokenizer,
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        initializer_range=NOISY,
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )
    return config, Gemma3Processor(
        Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer,
        tokenizer.chat_template,
        image_seq_length=4,
    )


def gemma4() -> tuple[Any, Any]:
    """Gemma 4."""
    from transformers import (
        Gemma4Config,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    tokenizer = _tokenizer(
        "<|image|>",
        *("<|video|>", "<|turn>", "<turn|>", "<|tool_response>", "<tool_response|>"),
        boi_token="<|image>",
        eoi_token="<image|>",
        image_token="<|image|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        audio_token="<|audio|>",
    )
    ids = tokenizer.convert_tokens_to_ids
    config = Gemma4Config(
        text_config=_text(
            tokenizer,
            head_dim=32,
            global_head_dim=32,
            sliding_window=16,
            layer_types=["sliding_attention", "full_attention"],
            vocab_size_per_layer_input=len(tokenizer),
            hidden_size_per_layer_input=16,
            use_bidirectional_attention="vision",
        ),
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 64,
            "initializer_range": NOISY,
        },
        audio_config=None,
        image_token_id=ids("<|image|>"),
        boi_token_id=ids("<|image>"),
        eoi_token_id=ids("<image|>"),
        video_token_id=ids("<|video|>"),
        audio_token_id=ids("<|audio|>"),
        boa_token_id=ids("<|audio>"),
        eoa_token_index=ids("<audio|>"),
        initializer_range=NOISY,
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )
    from transformers import Gemma4AudioFeatureExtractor

    return config, Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=70),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(),
        chat_template=tokenizer.chat_template,
    )


def smolvlm() -> tuple[Any, Any]:
    """SmolVLM2."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    rows = [f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5)]
    tokenizer = _tokenizer(
        "<image>",
        *rows,
        fake_image_token="<fake_token_around_image>",
        image_token="<image>",
        end_of_utterance_token="<end_of_utterance>",
        global_image_token="<global-img>",
        video_token="<video>",
    )
    config = SmolVLMConfig(
        text_config={"model_type": "llama", **_text(tokenizer)},
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "initializer_range": NOISY,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )
    return config, SmolVLMProcessor(
        SmolVLMImageProcessor(
            size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, resample=1
        ),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=tokenizer.chat_template,
    )


def llava_onevision() -> tuple[Any, Any]:
    """LLaVA-OneVision."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = _tokenizer("<image>\n", image_token="<image>", video_token="<video>")
    ids = tokenizer.convert_tokens_to_ids
    grids = [[28 * i, 28 * j] for i in range(1, 4) for j in range(1, 4)]
    config = LlavaOnevisionConfig(
        text_config={"model_type": "qwen2", **_text(tokenizer)},
        vision_config={
            "model_type": "siglip_vision_model",
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        image_token_index=ids("<image>"),
        video_token_index=ids("<video>"),
        image_grid_pinpoints=grids,
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )
    return config, LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size={"height": 28, "width": 28}, image_grid_pinpoints=grids),
        tokenizer,
        LlavaOnevisionVideoProcessor(),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    build.__name__: build
    for build in (
        *(qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, qwen3_5, qwen3_5_moe),
        *(internvl, internvl3_5, glm4v, glm4v_moe, glm46v),
        *(gemma3, gemma4, smolvlm, llava_onevision),
    )
}


def write_layout(name: str, folder: Path) -> Path:
    """Save a tiny student of a layout, and return its folder."""
    import torch
    from transformers import AutoModelForImageTextToText

    config, processor = BUILDERS[name]()
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config).float()
    for weight in model.parameters():
        if not weight.any():  # Gemma 3's projector begins as zeros: its pictures would not matter
            torch.nn.init.normal_(weight, std=NOISY)
    tokenizer = processor.tokenizer
    model.generation_config.suppress_tokens = [
        number for number in tokenizer.all_special_ids if number != tokenizer.eos_token_id
    ]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    write_layout(sys.argv[1], Path(sys.argv[2]))
