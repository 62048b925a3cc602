"""A model's shape from its ``config.json``, with exact parameter counts.

``recipes/models/NAME.json`` has the needed fields for the paper's students, teachers and judge; any
other model is read from its folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.plan.counted import EXPERTS, PATCHES, count
from rilbench.resources import resource

LAYOUTS = ("qwen2_5_vl", "internvl", "qwen2")
"""Values of ``model_type`` with formulas here; qwen2 is a judge."""
TEXT_LAYOUTS = ("qwen2", "qwen2_5_vl_text", "qwen2_5_vl")
"""Text models whose decoder layer is Qwen2.5's."""


@dataclass(frozen=True)
class Tower:
    """A stack of transformer layers of one kind."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    layer_parameters: int
    gated: bool  # an MLP of three matrices with SiLU, or of two with GELU


@dataclass(frozen=True)
class Architecture:
    """A model's shape. Sizes are in parameters (numbers, not bytes)."""

    name: str
    layout: str
    text: Tower
    kv_heads: int
    vocabulary: int
    tied: bool
    vision: Tower | None
    vision_parameters: int  # the whole tower and the projector
    patches_per_token: int  # of the vision tower, for one token of the text model
    patch_pixels: int = 0
    patch_values: int = 0  # numbers of one patch, as the processor makes them
    head_width: int = 0  # of an attention head, where it is not hidden / heads
    beside_layers: int = 0  # parameters of the decoder beside embedding, layers and last norm
    unshared: str = ""  # why it cannot share prompts
    linear: tuple[tuple[str, tuple[int, int]], ...] = ()
    """Name, inputs and outputs of each linear layer but the head, where they were counted."""

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.text.hidden // self.text.heads

    @property
    def kv_width(self) -> int:
        """Width of the keys, and of the values, of one layer."""
        return self.kv_heads * self.head_size

    @property
    def embedding(self) -> int:
        """Parameters of the token embedding; an untied head has as many again."""
        return self.vocabulary * self.text.hidden

    @property
    def decoder(self) -> int:
        """Parameters of embedding, layers and last norm, without the language head."""
        text = self.text
        layers = text.layers * text.layer_parameters
        return self.embedding + layers + text.hidden + self.beside_layers

    @property
    def head(self) -> int:
        """Parameters of the language head; none if it is tied."""
        return 0 if self.tied else self.embedding

    @property
    def parameters(self) -> int:
        """All parameters; tied ones count once."""
        return self.decoder + self.head + self.vision_parameters

    @property
    def discriminator(self) -> int:
        """Parameters of the discriminator: the decoder, and d × 1 for the head (no bias)."""
        return self.decoder + self.text.hidden

    def splits(self, devices: int) -> bool:
        """Whether vLLM can divide it among so many devices: heads and MLPs must divide evenly.

        InternViT's heads are left out, since vLLM pads them.
        """
        sizes = [self.text.heads, self.text.intermediate]
        if self.vision is not None:
            sizes.append(self.vision.intermediate)
            sizes += [self.vision.heads] if self.layout == "qwen2_5_vl" else []
        return all(size % devices == 0 for size in sizes)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache for one token in bf16."""
        return 2 * self.text.layers * self.kv_width * 2


def find_architecture(model: str, name: str = "") -> Architecture:
    """Return a model's architecture, from its folder or else from ``recipes/models``.

    Args:
        model: a folder or a hub name.
        name: the student's name in the recipes, if it is one.

    Raises:
        UserError: there is no config.json, or its layout is not known.
    """
    file = locate_config(model)
    if file is None:
        for path in sorted(resource("recipes/models").glob("*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            if model in document["models"] or path.stem == name:
                return read_architecture(document["config"], path.stem)
        raise UserError(
            f"no config.json of {model} is known; give its folder with --set student.model=FOLDER"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); is {model} a model's folder?") from error
    return read_architecture(config, name or file.parent.name)


def locate_config(model: str) -> Path | None:
    """Return a model's ``config.json``; None if its folder is not on this machine."""
    try:
        file = locate(model) / "config.json"
    except UserError:
        return None
    return file if file.is_file() else None


def read_architecture(config: Mapping[str, Any], name: str) -> Architecture:
    """Return the architecture of a ``config.json``: by formulas, or counted.

    Raises:
        UserError: its layout is not known, or a field is missing.
    """
    layout = str(config.get("model_type"))
    text = config.get("text_config", config).get("model_type", "qwen2")
    if layout not in LAYOUTS or text not in TEXT_LAYOUTS:
        if layout in PATCHES:
            return count(config, name)
        raise UserError(_unknown(name, layout))
    try:
        return _read(config, name, layout)
    except (KeyError, TypeError) as error:
        raise UserError(f"the config.json of {name} lacks {error}; take the whole file") from error


def _unknown(name: str, layout: str) -> str:
    """Return what to do with a model whose layout is not known."""
    if layout == "internvl_chat":
        return (
            f"{name} is in InternVL's original format (internvl_chat); take the repository in "
            "transformers' format, whose name ends in -hf, such as OpenGVLab/InternVL3-8B-hf"
        )
    if layout in EXPERTS:
        return (
            f"{name} is a {layout}: it can be trained, but rilbench plan does not know how many of "
            "its experts a token uses; plan a student without experts that is about as large"
        )
    return (
        f"{name} is a {layout}, whose parameters cannot be counted; plan a student of "
        f"{', '.join(PATCHES)}"
    )


def _read(config: Mapping[str, Any], name: str, layout: str) -> Architecture:
    text = config if layout == "qwen2" else config["text_config"]
    vision: Tower | None = None
    vision_parameters, patches, pixels, values = 0, 1, 0, 0
    if layout == "qwen2_5_vl":
        shape = config["vision_config"]
        vision, vision_parameters, patches = _qwen_vision(shape)
        pixels = shape["patch_size"] ** 2
        values = pixels * shape["in_channels"] * shape["temporal_patch_size"]
    elif layout == "internvl":
        shape = config["vision_config"]
        vision, vision_parameters, patches = _intern_vision(config)
        pixels = shape["patch_size"][0] * shape["patch_size"][1]
        values = pixels * shape["num_channels"]
    return Architecture(
        name=name,
        layout=layout,
        text=_decoder(text),
        kv_heads=text["num_key_value_heads"],
        vocabulary=text["vocab_size"],
        tied=bool(config["tie_word_embeddings"]),
        vision=vision,
        vision_parameters=vision_parameters,
        patches_per_token=patches,
        patch_pixels=pixels,
        patch_values=values,
    )


def _decoder(text: Mapping[str, Any]) -> Tower:
    """Qwen2.5's decoder layer: biases on q, k, v only; a gated MLP; two RMSNorms."""
    h, i, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    kv = text["num_key_value_heads"] * (h // heads)
    layer = 2 * h * h + h + 2 * (h * kv + kv) + 3 * h * i + 2 * h
    return Tower(text["num_hidden_layers"], h, i, heads, layer, gated=True)


def _qwen_vision(vision: Mapping[str, Any]) -> tuple[Tower, int, int]:
    """Qwen2.5-VL's tower and merger: biases everywhere but the patches; RMSNorms."""
    h, i = vision["hidden_size"], vision["intermediate_size"]
    patch = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2 * h
    layer = 4 * h * h + 4 * h + 3 * h * i + 2 * i + h + 2 * h
    merged = vision["spatial_merge_size"] ** 2
    wide, out = h * merged, vision["out_hidden_size"]
    merger = h + wide * wide + wide + wide * out + out
    tower = Tower(vision["depth"], h, i, vision["num_heads"], layer, gated=True)
    return tower, patch + tower.layers * layer + merger, merged


def _intern_vision(config: Mapping[str, Any]) -> tuple[Tower, int, int]:
    """InternViT in transformers' layout, and the projector with its LayerNorm."""
    vision, out = config["vision_config"], config["text_config"]["hidden_size"]
    h, i = vision["hidden_size"], vision["intermediate_size"]
    height, width = vision["image_size"]
    down, across = vision["patch_size"]
    patches = (height // down) * (width // across)
    norm = 2 * h if vision["norm_type"] == "layer_norm" else h
    layer = 4 * h * h + h + 2 * h * i + i + h + 2 * norm + 2 * h  # the last: its two scales
    layer += 3 * h if vision["attention_bias"] else 0
    layer += 2 * h if vision["use_qk_norm"] else 0
    around = h + vision["num_channels"] * down * across * h + h  # class token; patches with bias
    around += (patches + 1) * h if vision["use_absolute_position_embeddings"] else 0
    around += h if vision["use_mask_token"] else 0
    around += 0 if vision["use_mean_pooling"] else 2 * h
    merged = round(1 / config["downsample_ratio"]) ** 2
    wide = h * merged
    projector = 2 * wide + wide * out + out + out * out + out
    heads = vision["num_attention_heads"]
    tower = Tower(vision["num_hidden_layers"], h, i, heads, layer, gated=False)
    return tower, around + tower.layers * layer + projector, merged
