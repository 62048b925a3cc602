"""Lengths of the questions' prompts, pictures included, checked before anything is spent.

At a prompt that is too long verl stops in the step that meets it, which may be hours into a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rilbench.data.question_files import Question
from rilbench.errors import UserError


def check_lengths(student: Path, questions: Sequence[Question], most: int) -> None:
    """Check that no prompt has more than ``most`` tokens for the student in this folder.

    Raises:
        UserError: a prompt is too long (it says how many, and the longest), or as `prompt_lengths`.
    """
    lengths = prompt_lengths(student, questions)
    too_long = sum(length > most for length in lengths)
    if too_long:
        longest, question = max(zip(lengths, (q.id for q in questions), strict=True))
        raise UserError(
            f"{too_long} of {len(questions)} questions are longer than "
            f"data.max_prompt_tokens={most} with their pictures ({question} has {longest} tokens); "
            "drop them (rilbench data select), make their pictures smaller, or raise it"
        )


def prompt_lengths(student: Path, questions: Sequence[Question]) -> list[int]:
    """Tokens of each question's prompt, pictures included, as the student's processor counts them.

    Pictures of one size have equally many tokens, so only the first of each size is processed.

    Raises:
        UserError: a picture cannot be read.
    """
    from PIL import Image
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(student)
    tokenizer, placeholder = processor.tokenizer, processor.image_token
    placeholder_tokens = len(tokenizer(placeholder)["input_ids"])
    tokens_by_size: dict[tuple[int, int], int] = {}

    def added_tokens(encoded: bytes) -> int:
        """Tokens that a picture takes beyond those of its placeholder."""
        picture = Image.open(io.BytesIO(encoded))
        if picture.size not in tokens_by_size:
            inputs = processor(text=[placeholder], images=[picture.convert("RGB")])
            tokens_by_size[picture.size] = len(inputs["input_ids"][0]) - placeholder_tokens
        return tokens_by_size[picture.size]

    lengths = []
    for question in questions:
        text = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        length = len(tokenizer(text)["input_ids"])
        try:
            lengths.append(length + sum(added_tokens(image) for image in question.images))
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(
                f"a picture of question {question.id} cannot be read ({error}); fix it, or drop "
                "the question"
            ) from error
    return lengths
