"""How long the questions' prompts are for a student, pictures included, before anything is spent.

verl stops at such a prompt in the step that meets it, which may be hours into a run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rilbench.data.question_files import Question
from rilbench.errors import UserError


def check_lengths(student: Path, questions: Sequence[Question], most: int) -> None:
    """Refuse questions with longer prompts than the recipe allows.

    Args:
        student: its folder, with the processor.
        most: tokens, ``data.max_prompt_tokens``.

    Raises:
        UserError: how many, and the longest; or a picture that cannot be read.
    """
    lengths = prompt_lengths(student, questions)
    long = sum(length > most for length in lengths)
    if long:
        longest = max(range(len(lengths)), key=lengths.__getitem__)
        raise UserError(
            f"{long} of {len(questions)} questions are longer than data.max_prompt_tokens={most} "
            f"with their pictures ({questions[longest].id} has {lengths[longest]} tokens); drop "
            "them (rilbench data select), make their pictures smaller, or raise it"
        )


def prompt_lengths(student: Path, questions: Sequence[Question]) -> list[int]:
    """Tokens of each question's prompt, pictures included, as the student's processor counts them.

    Of pictures of one size the first is counted, so that forty thousand take seconds.

    Raises:
        UserError: a picture cannot be read.
    """
    from PIL import Image
    from transformers import AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(student)
    mark, tokenizer = processor.image_token, processor.tokenizer
    of_a_mark = len(tokenizer(mark)["input_ids"])
    of_a_size: dict[tuple[int, int], int] = {}

    def added(encoded: bytes) -> int:
        """Tokens that a picture takes beyond those of its mark."""
        picture = Image.open(io.BytesIO(encoded))
        if picture.size not in of_a_size:
            inputs = processor(text=[mark], images=[picture.convert("RGB")])
            of_a_size[picture.size] = len(inputs["input_ids"][0]) - of_a_mark
        return of_a_size[picture.size]

    lengths = []
    for question in questions:
        text = processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        length = len(tokenizer(text)["input_ids"])
        try:
            lengths.append(length + sum(added(image) for image in question.images))
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(
                f"a picture of question {question.id} cannot be read ({error}); mend or drop it"
            ) from error
    return lengths
