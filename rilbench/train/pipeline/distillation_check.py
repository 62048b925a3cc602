"""Whether a teacher of on-policy distillation reads what the student reads: token by token."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.paths import locate


def check_teachers_tokens(recipe: Recipe, student: Path, questions: Sequence[Question]) -> None:
    """Refuse a teacher that gives other tokens to the student's prompts or responses.

    Args:
        recipe: one whose method uses a teacher's log-probabilities.
        student: the student's folder.
        questions: a few, with their pictures.

    Raises:
        UserError: a teacher's weights are not on this machine, its tokens are others, or verl
            cannot show it the student's pictures.
    """
    from PIL import Image  # here: the other methods need neither
    from transformers import AutoProcessor

    own = AutoProcessor.from_pretrained(student)
    on_vllm = recipe.hardware.device == "cuda" or recipe.hardware.rollout_engine == "vllm"
    if on_vllm and "Qwen2VLImageProcessor" not in type(own.image_processor).__name__:
        # vLLM puts a picture's tokens in itself. verl folds them before only for Qwen-VL.
        raise UserError(
            f"method={recipe.method} on vLLM takes students of Qwen-VL's layouts alone: verl shows "
            "a teacher the pictures of no other; use one of them, or method=ril"
        )

    def tokens(processor: Any, question: Question) -> list[int]:
        text = own.apply_chat_template(question.chat, tokenize=False, add_generation_prompt=True)
        images = [Image.open(io.BytesIO(image)) for image in question.images]
        read = processor(text=[text], images=images or None)
        return list(read["input_ids"][0])

    for name in recipe.teachers.names:
        model = recipe.teachers.models[name]
        teacher = AutoProcessor.from_pretrained(locate(model))
        remedy = "use a teacher of the student's family, or method=ril, which reads its text alone"
        others = own.tokenizer.get_vocab().items() - teacher.tokenizer.get_vocab().items()
        if others:
            raise UserError(
                f"{name} ({model}) has another tokenizer than the student ({len(others)} of its "
                f"tokens differ), and method={recipe.method} compares token by token; {remedy}"
            )
        for question in questions:
            if tokens(teacher, question) != tokens(own, question):
                raise UserError(
                    f"{name} ({model}) reads question {question.id} as other tokens than the "
                    f"student, and method={recipe.method} compares token by token; {remedy}"
                )
