"""The students of the GPU checks: the paper's shapes with random weights, and a tiny one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from rilbench.config import load_recipe
from rilbench.config.schema import Recipe
from rilbench.plan.architecture import Architecture, read_architecture
from rilbench.plan.assumptions import Assumptions, assume
from rilbench.plan.memory import DISCRIMINATOR_WORDS, Memory, plan_memory
from rilbench.resources import resource

TINY = {
    "model_type": "qwen2_5_vl",
    "tie_word_embeddings": True,
    "image_token_id": 3,
    "text_config": {
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
    },
    "vision_config": {
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
    },
}
"""The layout of Qwen2.5-VL in two layers."""

PLAIN = ("hardware.share_prompts=false",)
"""What is planned beside the plain updates; the shared one is measured against these."""


@dataclass(frozen=True)
class Size:
    """A student's shape, and a recipe of one GPU with the lengths that the plan assumes."""

    name: str
    config: dict[str, Any]
    recipe: Recipe
    assumed: Assumptions

    @classmethod
    def of(cls, student: str) -> Size:
        """A student of the recipes."""
        recipe = load_recipe("both", student, overrides=PLAIN, hardware="1-gpu-80gb")
        kept = json.loads(resource(f"recipes/models/{student}.json").read_text(encoding="utf-8"))
        return cls(student, kept["config"], recipe, assume(recipe))

    @classmethod
    def tiny(cls) -> Size:
        """For a CPU: two layers, and micro-batches of two short rows."""
        lengths = ["data.max_prompt_tokens=10", "data.max_response_tokens=8"]
        rows = ["policy.micro_batch_tokens=36", "discriminator.micro_batch_tokens=1040"]
        recipe = load_recipe(
            "both", "qwen2.5-vl-3b", overrides=[*lengths, *rows, *PLAIN], hardware="1-gpu-80gb"
        )
        told = ["prompt_tokens=10", "image_tokens=6", "response_tokens=8"]
        return cls("tiny", TINY, recipe, assume(recipe, told))

    @property
    def architecture(self) -> Architecture:
        """The shape as the plan reads it."""
        return read_architecture(self.config, self.name)

    @property
    def memory(self) -> Memory:
        """What the plan says."""
        return plan_memory(self.recipe, self.architecture, self.assumed)

    @property
    def policy_rows(self) -> tuple[int, int]:
        """Rows of the policy's micro-batch, and tokens of each."""
        length = self.assumed.prompt_tokens + self.assumed.response_tokens
        return self.recipe.policy.micro_batch_tokens // length, length

    @property
    def discriminator_rows(self) -> tuple[int, int]:
        """The same of the discriminator's."""
        length = self.assumed.response_tokens + DISCRIMINATOR_WORDS
        return self.recipe.discriminator.micro_batch_tokens // length, length


def build_student(size: Size, device: str, dtype: torch.dtype = torch.float32) -> Any:
    """The student with random weights, in training mode."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    fields = {key: value for key, value in size.config.items() if key != "model_type"}
    config = AutoConfig.for_model(size.config["model_type"], **fields)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            config, dtype=dtype, attn_implementation="sdpa"
        )
    return model.train()
