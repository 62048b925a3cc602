"""A student of somebody's own: a tiny, untrained Qwen3-VL, a layout that no recipe has."""

from pathlib import Path


def write_student(folder: Path) -> Path:
    """Save one, with the nano student's tokenizer and chat template."""
    import torch
    from transformers import (
        AutoProcessor,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    from rilbench.paths import locate

    nano = AutoProcessor.from_pretrained(locate("nano:restyled"))
    tokenizer = nano.tokenizer
    ids = tokenizer.convert_tokens_to_ids
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "initializer_range": 0.1,  # so that untrained weights care for the picture
            **ends,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.1,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
        **ends,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).float()
    model.generation_config.suppress_tokens = [
        number for number in tokenizer.all_special_ids if number != tokenizer.eos_token_id
    ]
    model.save_pretrained(folder)
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            patch_size=16, min_pixels=32 * 32, max_pixels=16 * 32 * 32
        ),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=nano.chat_template,
    ).save_pretrained(folder)
    return folder
