"""The groups of a step of the fast engine: questions, sampled and saved responses, verdicts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.judge.rules import is_right
from rilbench.lab.fast.prompts import Student
from rilbench.model.decoder import Prompts
from rilbench.model.inputs import teacher_tokens
from rilbench.train.discriminator_texts import SavedTexts
from rilbench.train.seeding import noisy_verdict, sample_teacher_responses, seed_of
from rilbench.train.step_batch import StepBatch
from rilbench.train.step_config import StepConfig


@dataclass(frozen=True)
class TrainingData:
    """The questions of a run and the responses that were saved before it."""

    questions: Sequence[Question]
    saved: Mapping[str, Mapping[str, Sequence[str]]]
    """Question id → teacher → its responses."""
    student_saved: Mapping[str, Sequence[str]]
    """Question id → the student's, on which the discriminator is pre-trained."""


class Groups:
    """Makes the groups of each step.

    Args:
        recipe: the recipe.
        step: its step settings.
        data: questions and saved responses.
        policy: which samples.
    """

    def __init__(
        self, recipe: Recipe, step: StepConfig, data: TrainingData, policy: Student
    ) -> None:
        self.recipe, self.step, self.data, self.policy = recipe, step, data, policy

    def questions(self, step: int) -> list[Question]:
        """The questions of a step: every one comes once before any comes again."""
        size, number = self.recipe.schedule.prompts_per_step, len(self.data.questions)
        chosen = []
        for place in range((step - 1) * size, step * size):
            order = _order(number, seed_of("order", self.recipe.seed, place // number))
            chosen.append(self.data.questions[order[place % number]])
        return chosen

    def sample(
        self, step: int, questions: Sequence[Question], prompts: Prompts
    ) -> tuple[StepBatch, list[list[int]]]:
        """All groups of a step, judged; and the tokens of their responses."""
        config = self.step
        seeds = [
            [
                seed_of("sample", config.seed, step, question.id, session) % 2**31
                for session in range(config.num_student_responses)
            ]
            for question in questions
        ]
        sampled = self.policy.sample(
            questions, seeds, self.recipe.sampling, self.recipe.data.max_response_tokens, prompts
        )
        tokens: list[list[int]] = []
        source: list[str] = []
        paired: list[str] = []
        for question, own in zip(questions, sampled, strict=True):
            saved: list[tuple[str, str]] = []
            if number := self.recipe.saved_responses_per_question:
                saved = sample_teacher_responses(
                    self._usable(question), number, config.mix, *(config.seed, step, question.id)
                )
            if self.recipe.method_spec.pairs_with_teachers:
                paired += [response for _, response in saved]
                saved = []
            tokens += own + [self.tokens(response) for _, response in saved]
            source += ["student"] * len(own) + [teacher for teacher, _ in saved]
        size = config.group_responses
        asked = [question for question in questions for _ in range(size)]
        texts = self.policy.decode(tokens)
        exact, verdicts = self._judge(asked, texts)
        image_tokens = (prompts.input_ids == self.policy.image_token).sum(1).repeat_interleave(size)
        batch = StepBatch(
            session=[i % size for i in range(len(tokens))],
            question_id=[question.id for question in asked],
            source=source,
            response=texts,
            group=torch.arange(len(questions)).repeat_interleave(size),
            is_student=torch.tensor([name == "student" for name in source]),
            answer_reward=torch.tensor(verdicts),
            answer_reward_before_noise=torch.tensor(exact),
            tokens=[len(each) for each in tokens],
            finished=[each[-1] == self.policy.end for each in tokens],
            image_tokens=image_tokens.tolist(),
            question=[question.question for question in asked],
            reference=[question.answer for question in asked],
            paired_response=paired,
        )
        return batch, tokens

    def saved_texts(self) -> SavedTexts:
        """What the discriminator is pre-trained on: by question if it compares pairs."""
        paired = self.recipe.method_spec.pairs_with_teachers
        responses: list[str] = []
        student: dict[str, list[int]] = {}
        teacher: dict[str, list[int]] = {}

        def add(side: dict[str, list[int]], question: Question, texts: Sequence[str]) -> None:
            first = len(responses)
            responses.extend(texts)
            place = side.setdefault(question.id if paired else "", [])
            place += range(first, len(responses))

        for question in self.data.questions:
            add(student, question, self.data.student_saved[question.id])
            for texts in self._usable(question).values():
                add(teacher, question, texts)
        asked = {question.id: question.question for question in self.data.questions}
        return SavedTexts(responses, student, teacher, asked)

    def examples(self) -> list[tuple[Question, str]]:
        """Every question with each of its saved responses, for SFT."""
        return [
            (question, response)
            for question in self.data.questions
            for responses in self._usable(question).values()
            for response in responses
        ]

    def _usable(self, question: Question) -> dict[str, Sequence[str]]:
        """Each teacher's saved responses that the recipe may use."""
        by_teacher = self.data.saved[question.id]
        most = self.recipe.max_saved_responses
        names = self.recipe.teachers_of(question.source)
        return {name: by_teacher[name][:most] for name in names}

    def _judge(
        self, asked: Sequence[Question], texts: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        """The verdict on each response: exact, and with the recipe's simulated errors."""
        config = self.step
        exact, noisy = [], []
        for question, text in zip(asked, texts, strict=True):
            exact.append(float(_is_right(question.answer, text)))
            rates = (config.false_positive_rate, config.false_negative_rate)
            noisy.append(noisy_verdict(exact[-1], *rates, config.seed, question.id, text))
        return exact, noisy

    def tokens(self, response: str) -> list[int]:
        """A saved response's tokens, cut where a sampled one would be."""
        return teacher_tokens(self.policy.tokenizer, response, self.recipe.data.max_response_tokens)


@lru_cache(maxsize=4)
def _order(number: int, seed: int) -> list[int]:
    order = list(range(number))
    random.Random(seed).shuffle(order)
    return order


@lru_cache(maxsize=100_000)
def _is_right(reference: str, response: str) -> bool:
    return is_right(reference, response)
