"""Which layouts of vision-language models can be students, and what each needs.

verl 0.9.1's ``hf_processor`` has a list of processors: pictures reach a model only with one of
these. `rilbench.train.verl.model_families` brings the others that are named here. Tests compare
this table with verl's source and with ``docs/students.md`` (``tests/train/test_layouts.py``), and
train a tiny model of each layout (``tests/train/test_students.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rilbench.config.schema import Recipe
from rilbench.errors import UserError


@dataclass(frozen=True)
class Layout:
    """A layout of students, by transformers' ``model_type``."""

    title: str
    """What people call the models."""
    processor: Literal["verl", "rilbench"] = "verl"
    """Who brings its processor to verl's processes."""
    token_types: str = ""
    """The input that tells a picture's tokens from text. In such a layout a picture's tokens see
    each other in both directions, which needs torch's own attention and rows that are padded."""
    blanks: bool = False
    """Whether verl shows the model a blank picture where a micro-batch has none."""
    packs: bool = True
    """Whether rows may be packed without padding."""
    needs: str = ""
    """A package that its processor needs."""
    fine_tunes: bool = True
    """Whether verl's SFT makes the prompts of its pictures that the loop makes."""
    unsampled: str = ""
    """Why vLLM cannot sample it; empty if it can."""


LAYOUTS: Mapping[str, Layout] = {
    "qwen2_vl": Layout("Qwen2-VL", blanks=True),
    "qwen2_5_vl": Layout("Qwen2.5-VL", blanks=True),
    "qwen3_vl": Layout("Qwen3-VL", blanks=True),
    "qwen3_vl_moe": Layout("Qwen3-VL with experts", blanks=True),
    # Linear attention would go on from one packed row into the next, in the discriminator.
    "qwen3_5": Layout("Qwen3.5", blanks=True, packs=False),
    "qwen3_5_moe": Layout("Qwen3.5 with experts", blanks=True, packs=False),
    "glm4v": Layout("GLM-4.1V", fine_tunes=False),
    "glm4v_moe": Layout("GLM-4.5V", fine_tunes=False),
    "glm46v": Layout(
        "GLM-4.6V",
        fine_tunes=False,
        unsampled="vLLM 0.24 has no class for it, and stops at its positions",
    ),
    "gemma4": Layout("Gemma 4", token_types="mm_token_type_ids", packs=False),
    "gemma3": Layout(
        "Gemma 3", "rilbench", token_types="token_type_ids", packs=False, fine_tunes=False
    ),
    "internvl": Layout("InternVL3, InternVL3.5 (-hf)", "rilbench"),
    "llava_onevision": Layout("LLaVA-OneVision", "rilbench", fine_tunes=False),
    "smolvlm": Layout("SmolVLM2", "rilbench", needs="num2words", fine_tunes=False),
}
"""Those whose pictures reach the model."""

REFUSED: Mapping[str, str] = {
    "mllama": (
        "its pictures enter by a cross-attention whose mask has a place for every token of prompt "
        "and response, and verl 0.9.1 makes none"
    ),
    "internvl_chat": (
        "it is in InternVL's original format; take the repository in transformers' format, whose "
        "name ends in -hf, such as OpenGVLab/InternVL3-8B-hf"
    ),
    "glmga": "rilbench has not been tried with it",
    **dict.fromkeys(
        ("kimi_vl", "minicpmv", "minicpmo"),
        "verl 0.9.1 has no processor for it, and its own needs code from the hub",
    ),
}
"""Why others that somebody may try are refused."""


def layout_of(model_type: str) -> Layout:
    """The layout of a student.

    Raises:
        UserError: its pictures would not reach it, or a package is missing; says what helps.
    """
    if layout := LAYOUTS.get(model_type):
        if layout.needs and find_spec(layout.needs) is None:
            raise UserError(
                f"the processor of {layout.title} needs a package: uv pip install {layout.needs}"
            )
        return layout
    why = REFUSED.get(model_type, "verl 0.9.1 has no processor for it, and rilbench adds none")
    raise UserError(
        f"a student of layout {model_type} cannot be trained: {why}; use one of "
        f"{', '.join(LAYOUTS)}"
    )


def check_layout(recipe: Recipe, model_type: str) -> None:
    """Refuse a student that the recipe's stages cannot train.

    Raises:
        UserError: as `layout_of`; or SFT, or vLLM, does not know its pictures.
    """
    layout = layout_of(model_type)
    if recipe.sft.steps and not layout.fine_tunes:
        raise UserError(
            f"{layout.title} cannot be fine-tuned here: verl 0.9.1's SFT makes other prompts of "
            "its pictures than the loop does; set sft.steps=0, or fine-tune it elsewhere and give "
            "the result as student.model"
        )
    if recipe.method_spec.is_rl and recipe.hardware.device == "cuda" and layout.unsampled:
        raise UserError(f"{layout.title} cannot be sampled on GPUs: {layout.unsampled}")


def suited(recipe: Recipe, student: str | Path) -> Recipe:
    """The recipe with the settings that the student's layout needs in the place of others.

    They are `hardware.share_prompts` and `hardware.remove_padding`, which change how fast a step
    is and not what it trains.

    Args:
        recipe: as the user gave it.
        student: its folder.
    """
    config = _read(student)
    return suited_to(recipe, layout_of(config.model_type), why_unshared(config))


def suited_to(recipe: Recipe, layout: Layout, unshared: str) -> Recipe:
    """The same for a layout, of a student that cannot share prompts if ``unshared`` says why."""
    hardware = replace(
        recipe.hardware,
        share_prompts=recipe.hardware.share_prompts and not unshared,
        remove_padding=recipe.hardware.remove_padding and layout.packs,
    )
    return replace(recipe, hardware=hardware)


def note_on_layout(recipe: Recipe, student: str | Path) -> str:
    """`note_on_sharing` of a student in a folder."""
    config = _read(student)
    return note_on_sharing(recipe, layout_of(config.model_type), why_unshared(config))


def note_on_sharing(recipe: Recipe, layout: Layout, unshared: str) -> str:
    """One line on what `suited` takes back; "" if it is nothing that the run would have used."""
    if not (recipe.method_spec.is_rl and recipe.hardware.share_prompts and unshared):
        return ""
    return (
        f"{layout.title} cannot share prompts ({unshared}): each response is computed with its "
        "own prompt, as with hardware.share_prompts=false"
    )


def why_unshared(config: Any) -> str:
    """Why a student of this config cannot share prompts; "" if it can."""
    if config.model_type in LAYOUTS and LAYOUTS[config.model_type].token_types:
        return "a picture's tokens see each other in both directions"
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    others = ", ".join(sorted(kinds - {"full_attention"}))
    return f"it has layers of {others}" if others else ""


def _read(student: str | Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(student)
