"""The responses that the discriminator reads: a step's, or saved ones to pre-train it on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import torch

from rilbench.data.row_files import MappedColumn, mapped_column
from rilbench.train.step_batch import StepBatch


@dataclass(frozen=True)
class Texts:
    """N responses for the discriminator to read."""

    responses: Sequence[str]
    is_student: torch.Tensor
    """(N,) bool."""
    asked: Sequence[str] = ()
    """Of pairs, which D reads with it, each response's question; else empty."""

    @classmethod
    def of_step(cls, batch: StepBatch) -> Texts:
        """A step's responses; in pairs where each has a teacher's beside it."""
        if batch.paired_response:
            return cls.of_pairs(batch.response, batch.paired_response, batch.question)
        return cls(batch.response, batch.is_student)

    @classmethod
    def of_pairs(
        cls, student: Sequence[str], teacher: Sequence[str], questions: Sequence[str]
    ) -> Texts:
        """Pairs of responses to the same questions: all of the student's, then the teachers'."""
        side = torch.arange(2 * len(student)) < len(student)
        return cls([*student, *teacher], side, [*questions, *questions])

    @property
    def paired(self) -> bool:
        """Whether D compares the first half with the second, response by response."""
        return bool(self.asked)

    @property
    def questions(self) -> Sequence[str]:
        """Of each response its question; "" where D reads none."""
        return self.asked or [""] * len(self.responses)

    def accuracy(self, logits: torch.Tensor) -> float:
        """The share of responses, or of pairs, that D takes for what they are."""
        if self.paired:
            student, teacher = logits.chunk(2)
            return (teacher < student).float().mean().item()
        return ((logits >= 0) == self.is_student).float().mean().item()


@dataclass(frozen=True)
class SavedTexts:
    """The saved responses on which the discriminator is pre-trained."""

    responses: Sequence[str] | MappedColumn
    """All of them; the others name them by their numbers."""
    student: Mapping[str, Sequence[int]]
    """By question, where pairs are sampled; else all under ""."""
    teacher: Mapping[str, Sequence[int]]
    questions: Mapping[str, str] = field(default_factory=dict)
    """The text of each question, where pairs are sampled: many may have the same."""

    @classmethod
    def read(cls, folder: Path, *, paired: bool) -> SavedTexts:
        """Read a run's ``data/``."""
        table = pq.read_table(folder / "discriminator.parquet")
        columns = (table[name].to_pylist() for name in ("is_student", "number"))
        questions, texts = [""] * len(table), {}
        if paired:
            questions = [str(place) for place in table["place"].to_pylist()]
            texts = dict(zip(questions, table["question"].to_pylist(), strict=True))
        sides: tuple[dict[str, list[int]], dict[str, list[int]]] = ({}, {})
        for is_student, number, question in zip(*columns, questions, strict=True):
            sides[not is_student].setdefault(question, []).append(number)
        return cls(mapped_column(folder / "responses.arrow"), *sides, texts)

    def sample(self, sampler: random.Random, number: int) -> Texts:
        """As many responses of each side; with questions, of pairs to the same one."""
        if list(self.student) == [""]:
            chosen = sampler.choices(self.student[""], k=number)
            chosen += sampler.choices(self.teacher[""], k=number)
            is_student = torch.arange(2 * number) < number
            return Texts([self.responses[i] for i in chosen], is_student)
        both = [question for question in self.student if question in self.teacher]
        questions = sampler.choices(both, k=number)
        student, teacher = (
            [self.responses[sampler.choice(side[question])] for question in questions]
            for side in (self.student, self.teacher)
        )
        return Texts.of_pairs(student, teacher, [self.questions[each] for each in questions])
