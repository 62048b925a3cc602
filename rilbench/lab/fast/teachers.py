"""The teachers of the fast engine in on-policy distillation, where they score what is sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.lab.fast.prompts import PromptInputs, Student
from rilbench.paths import locate
from rilbench.train.seeding import assigned_teacher
from rilbench.train.step_batch import StepBatch


class Teachers:
    """The teachers that a recipe names.

    Args:
        recipe: the recipe.
        inputs: the student's, whose tokens and pictures they read.
    """

    def __init__(self, recipe: Recipe, inputs: PromptInputs) -> None:
        self.recipe = recipe
        self.models = {
            name: Student(locate(recipe.teachers.models[name]), inputs)
            for name in recipe.teachers.names
        }

    @torch.no_grad()
    def log_probs(
        self,
        step: int,
        questions: Sequence[Question],
        batch: StepBatch,
        tokens: Sequence[list[int]],
    ) -> Tensor:
        """(N, T) of the step's responses, each by one teacher; 0 behind a response's end."""
        source = {question.id: question.source for question in questions}
        assigned = [
            assigned_teacher(
                self.recipe.teachers_of(source[question]),
                session,
                *(self.recipe.seed, step, question),
            )
            for question, session in zip(batch.question_id, batch.session, strict=True)
        ]
        found = torch.zeros(len(tokens), max(map(len, tokens)))
        for name, model in self.models.items():
            mine = [i for i, teacher in enumerate(assigned) if teacher == name]
            if mine:
                prompts = model.read(questions)
                scores, _ = model.log_probs(prompts, batch.group[mine], [tokens[i] for i in mine])
                found[mine, : scores.shape[1]] = scores
        return found
