"""One question with its pictures, and what makes it unfit to be asked."""

from __future__ import annotations

from dataclasses import dataclass

PLACEHOLDER = "<image>"


class RefusedError(ValueError):
    """Why one row of a file is no question; whoever reads the file says which file and row."""


@dataclass(frozen=True)
class Question:
    """One question with its pictures and its ground truth."""

    id: str
    images: tuple[bytes, ...]
    question: str
    answer: str
    source: str

    @property
    def marked(self) -> str:
        """The text with ``<image>`` wherever a picture goes."""
        if PLACEHOLDER in self.question:
            return self.question
        return PLACEHOLDER * len(self.images) + self.question

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
        """The conversation as a chat template takes it: one message, a picture only its place."""
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in self.parts
        ]
        return [{"role": "user", "content": content}]


def checked(question: Question) -> Question:
    """The question, if it can be asked.

    Raises:
        RefusedError: it lacks its id, text, answer or image, or has more or fewer placeholders
            than images.
    """
    lacking = [name for name in ("id", "question", "answer") if not getattr(question, name).strip()]
    lacking += [] if question.images and all(question.images) else ["image"]
    if lacking:
        raise RefusedError(f"question {question.id!r} lacks its {lacking[0]}; mend or drop it")
    places, images = question.marked.count(PLACEHOLDER), len(question.images)
    if places != images:
        raise RefusedError(
            f"question {question.id!r} has {places} {PLACEHOLDER} in its text and {images} images; "
            "write one for each, or none"
        )
    return question
