"""A question about a picture, and its prompt in the kit's own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class SyntheticQuestion:
    """One question about one picture.

    Attributes:
        benchmark: the benchmark that it stands in for.
        kind: the category within the benchmark.
        text: as in the benchmark's file, with ``<image 1>`` where the original has such tags.
        truth: the ground truth that the kit compares with.
        worked: the answer in the teachers' style.
        bare: the answer in the students' default style.
        options: the choices in order; empty for open questions.
        alternative: another form that the judge accepts as the final answer.
    """

    benchmark: str
    kind: str
    text: str
    truth: str
    worked: str
    bare: str
    options: tuple[str, ...] = field(default=())
    alternative: str = ""

    @property
    def accepted(self) -> str:
        """The answers that a judge accepts."""
        return f"{self.truth}<OR>{self.alternative}" if self.alternative else self.truth

    @property
    def prompt(self) -> str:
        """The prompt word for word as VLMEvalKit builds it, with ``<image>`` for a picture.

        Without that tag, the pictures come first.
        """
        text = PROMPTS.get(self.benchmark, _choice_prompt)(self)
        return text.replace("<image 1>", "<image>").replace("<image 2>", "<image>")


# ---- prompts, as ms-vlmeval 0.0.20 builds them


def _options(question: SyntheticQuestion) -> str:
    return "".join(
        f"{letter}. {option}\n" for letter, option in zip(LETTERS, question.options, strict=False)
    )


def _choice_prompt(question: SyntheticQuestion) -> str:
    text = f"Question: {question.text}\n"
    if not question.options:
        return text
    return (
        f"{text}Options:\n{_options(question)}"
        "Please select the correct answer from the options above. \n"
    )


def _ten_options_prompt(question: SyntheticQuestion) -> str:
    direct = "Answer directly with the option letter from the given choices. "
    if question.kind == "vision":
        return f"Answer the following multiple-choice question in the image. {direct}"
    return f"Question: {question.text}\nOptions:\n{_options(question)}{direct}"


PROMPTS: Mapping[str, Callable[[SyntheticQuestion], str]] = {
    "ChartQA": lambda q: f"{q.text}\nAnswer the question using a single word or phrase.",
    "MathVista": lambda q: q.text,
    "MM-Vet": lambda q: q.text,
    "MM-Vet-v2": lambda q: q.text,
    "MMMU-Pro": _ten_options_prompt,
}
"""The benchmarks whose prompt is not the plain choice."""
