"""A question about a picture, and its prompt in the kit's own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    ``text`` stands in the benchmark's file, with ``<image 1>`` where its original has such tags;
    ``options`` are the choices in order (empty for open questions); ``truth`` is what the kit
    compares with; ``alternative`` is another form that the judge accepts as the final answer.
    """

    family: str
    kind: str
    text: str
    truth: str
    worked: str
    bare: str
    options: tuple[str, ...] = field(default=())
    alternative: str = ""

    @property
    def accepted(self) -> str:
        """What a judge accepts."""
        return f"{self.truth}<OR>{self.alternative}" if self.alternative else self.truth

    @property
    def prompt(self) -> str:
        """The prompt word for word as VLMEvalKit builds it; ``<image>`` where a picture goes.

        Without one, the pictures come first.
        """
        text = PROMPTS.get(self.family, _choice_prompt)(self)
        return text.replace("<image 1>", "<image>").replace("<image 2>", "<image>")


# ---- prompts, as ms-vlmeval 0.0.20 builds them


def _options(question: Question) -> str:
    return "".join(
        f"{letter}. {option}\n" for letter, option in zip(LETTERS, question.options, strict=False)
    )


def _choice_prompt(question: Question) -> str:
    text = f"Question: {question.text}\n"
    if not question.options:
        return text
    return (
        f"{text}Options:\n{_options(question)}"
        "Please select the correct answer from the options above. \n"
    )


def _ten_options_prompt(question: Question) -> str:
    direct = "Answer directly with the option letter from the given choices. "
    if question.kind == "vision":
        return f"Answer the following multiple-choice question in the image. {direct}"
    return f"Question: {question.text}\nOptions:\n{_options(question)}{direct}"


def _bare_prompt(question: Question) -> str:
    return question.text


def _phrase_prompt(question: Question) -> str:
    return f"{question.text}\nAnswer the question using a single word or phrase."


PROMPTS: Mapping[str, Callable[[Question], str]] = {
    "ChartQA": _phrase_prompt,
    "MathVista": _bare_prompt,
    "MM-Vet": _bare_prompt,
    "MM-Vet-v2": _bare_prompt,
    "MMMU-Pro": _ten_options_prompt,
}
"""The families whose prompt is not the plain choice."""
