"""Lengths of the questions' prompts, pictures included, checked before anything is spent.

At a prompt that is too long verl stops in the step that meets it, which may be hours into a run.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rilbench.data.question import Question
from rilbench.errors import UserError


class PromptLengths:
    """Counts the tokens of prompts, pictures included, as the student's processor does.

    Pictures of one size have equally many tokens, so only the first of each size is processed.

    Args:
        student: folder of the student.
        most: tokens of the longest prompt that is allowed.
    """

    def __init__(self, student: Path, most: int) -> None:
        from transformers import AutoProcessor

        self.most = most
        self.lengths: list[tuple[int, str]] = []
        """Of each prompt, with the question's id."""
        self._processor: Any = AutoProcessor.from_pretrained(student)
        self._placeholder = self._processor.image_token
        self._placeholder_tokens = len(self._processor.tokenizer(self._placeholder)["input_ids"])
        self._tokens_by_size: dict[tuple[int, int], int] = {}

    def add(self, question: Question) -> None:
        """Count one question's prompt.

        Raises:
            UserError: a picture cannot be read.
        """
        from PIL import Image

        text = self._processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        length = len(self._processor.tokenizer(text)["input_ids"])
        try:
            length += sum(map(self._added_tokens, question.images))
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(
                f"a picture of question {question.id} cannot be read ({error}); fix it, or drop "
                "the question"
            ) from error
        self.lengths.append((length, question.id))

    def check(self) -> None:
        """Check that no prompt is too long.

        Raises:
            UserError: one is (it says how many, and the longest).
        """
        too_long = sum(length > self.most for length, _ in self.lengths)
        if too_long:
            longest, question = max(self.lengths)
            raise UserError(
                f"{too_long} of {len(self.lengths)} questions are longer than "
                f"data.max_prompt_tokens={self.most} with their pictures ({question} has "
                f"{longest} tokens); drop them (rilbench data select), make their pictures "
                "smaller, or raise it"
            )

    def _added_tokens(self, encoded: bytes) -> int:
        """Tokens that a picture takes beyond those of its placeholder."""
        from PIL import Image

        picture = Image.open(io.BytesIO(encoded))
        if picture.size not in self._tokens_by_size:
            inputs = self._processor(text=[self._placeholder], images=[picture.convert("RGB")])
            tokens = len(inputs["input_ids"][0]) - self._placeholder_tokens
            self._tokens_by_size[picture.size] = tokens
        return self._tokens_by_size[picture.size]
