"""One training question, and what makes it invalid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rilbench.data.row_files import mapped_column
from rilbench.errors import InvalidQuestionError

PLACEHOLDER = "<image>"
"""Marks in a question's text where an image goes."""


@dataclass(frozen=True)
class Question:
    """One question with its images and its reference answer."""

    id: str
    images: tuple[bytes, ...]
    """Encoded image files."""
    question: str
    answer: str
    """The reference answer that the judge compares with."""
    source: str
    """The data set that it is from."""

    @property
    def num_images(self) -> int:
        """How many images it has."""
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """16 hex digits over what a model sees: the text and the images, not the answer."""
        digest = hashlib.sha256(self.question.encode("utf-8", "surrogatepass"))
        for image in self.images:
            digest.update(hashlib.sha256(image).digest())
        return digest.hexdigest()[:16]

    @property
    def marked(self) -> str:
        """The text with ``<image>`` wherever an image goes; images without a mark come first."""
        if PLACEHOLDER in self.question:
            return self.question
        return PLACEHOLDER * self.num_images + self.question

    @property
    def parts(self) -> list[str | bytes]:
        """Texts and encoded images in the order in which the model sees them."""
        first, *texts = self.marked.split(PLACEHOLDER)
        parts: list[str | bytes] = [first]
        for image, text in zip(self.images, texts, strict=True):
            parts += [image, text]
        return [part for part in parts if part]

    @property
    def chat(self) -> list[dict[str, object]]:
        """The conversation for a chat template: one user message, without the images' content."""
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in self.parts
        ]
        return [{"role": "user", "content": content}]


class StoredQuestion(Question):
    """A question whose images stay on the disk: each look at `images` reads them again.

    Args:
        question: what it is made from, and keeps nothing of but the texts.
        file: of `rilbench.data.row_files.write_column`, with the images; it may be written later.
        first: the number of the question's first image in the file.
    """

    def __init__(self, question: Question, file: Path, first: int) -> None:
        fields = ("id", "question", "answer", "source", "sha256")
        values = {name: getattr(question, name) for name in fields}
        vars(self).update(values, file=file, rows=range(first, first + question.num_images))

    file: Path
    rows: range
    """Numbers of its images in the file."""

    @property
    def num_images(self) -> int:
        """How many images it has."""
        return len(self.rows)

    @property
    def images(self) -> tuple[bytes, ...]:
        """The encoded image files."""
        stored = mapped_column(self.file)
        return tuple(stored[row] for row in self.rows)


_MISSING = ("nan", "NaN", "<NA>", "NaT")
"""How pandas writes a missing value."""


def check_question(question: Question) -> Question:
    """Return the question if it is valid.

    Raises:
        InvalidQuestionError: it lacks its id, text or answer, an image is empty, its answer is a
            missing value, or the number of placeholders is not the number of images. A question of
            text only has none of either.
    """
    lacking = [name for name in ("id", "question", "answer") if not getattr(question, name).strip()]
    if not all(question.images):
        lacking.append("image")
    if lacking:
        raise InvalidQuestionError(f"question {question.id!r} lacks its {lacking[0]}; add it")
    if question.answer.strip() in _MISSING:
        raise InvalidQuestionError(
            f"the answer of question {question.id!r} is {question.answer!r}, a missing value that "
            "was written as a text; drop it"
        )
    places, images = question.marked.count(PLACEHOLDER), len(question.images)
    if places != images:
        raise InvalidQuestionError(
            f"question {question.id!r} has {places} {PLACEHOLDER} in its text and {images} images; "
            "write one for each, or none"
        )
    return question
