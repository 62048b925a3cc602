"""The students of the GPU checks: the paper's shapes with random weights, and a tiny one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from rilbench.plan import Plan, make_plan
from rilbench.plan.assumptions import assume
from rilbench.recipe import load_recipe
from rilbench.resources import resource


@dataclass(frozen=True)
class Size:
    """A student's shape, the lengths of a row, and the rows of a micro-batch."""

    name: str
    config: dict[str, Any]
    plan: Plan | None
    rows: int
    image_tokens: int
    prompt_tokens: int
    response_tokens: int
    discriminator_rows: int
    discriminator_tokens: int

    @classmethod
    def of(cls, student: str) -> Size:
        """A student of the recipes, with the plan of one GPU for it."""
        recipe = load_recipe("both", student, hardware="1-gpu-80gb")
        assumed = assume(recipe)
        plan = make_plan(recipe, assumed)
        row = assumed.prompt_tokens + assumed.response_tokens
        text = assumed.response_tokens + 64
        return cls(
            name=student,
            config=json.loads(resource(f"recipes/models/{student}.json").read_text())["config"],
            plan=plan,
            rows=recipe.policy.micro_tokens // row,
            image_tokens=assumed.image_tokens,
            prompt_tokens=assumed.prompt_tokens,
            response_tokens=assumed.response_tokens,
            discriminator_rows=recipe.discriminator.micro_tokens // text,
            discriminator_tokens=text,
        )

    @classmethod
    def tiny(cls) -> Size:
        """For a CPU: the same layout, two layers."""
        text = {
            "model_type": "qwen2_5_vl_text",
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 3, 3],
            },
        }
        vision = {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "in_channels": 3,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        }
        config = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision}
        config |= {"tie_word_embeddings": True, "image_token_id": 3}
        return cls("tiny", config, None, 2, 6, 10, 8, 2, 12)


def build_student(size: Size, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """The student with random weights, in training mode, with gradient checkpointing."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    fields = {key: value for key, value in size.config.items() if key != "model_type"}
    config = AutoConfig.for_model(size.config["model_type"], **fields)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    return model.train()
