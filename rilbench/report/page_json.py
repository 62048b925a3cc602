"""The data of the page's script: questions, responses and training groups, compressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rilbench.data.rollout_groups import GroupResponse, RecordedStep, RolloutGroup
from rilbench.ledger import Sample
from rilbench.report.escaping import clean, label, packed
from rilbench.report.pictures import PictureNumbers, Pictures, PictureSource, numbers
from rilbench.report.questions import AnsweredQuestion, QuestionSet, by_need

BUDGET = 5_500_000
"""Characters for all texts together, compressed."""

_LONGEST = (6000, 3000, 1500, 800, 400, 200, 100)
"""Characters kept of a text: the first of these with which the page is small enough."""
_PACKS = 2.0
"""Characters of text in one of the page, at least about."""


@dataclass(frozen=True, kw_only=True)
class RunSteps:
    """The recorded steps of one run."""

    run: str
    steps: tuple[RecordedStep, ...]


@dataclass(frozen=True)
class Payload:
    """The embedded data.

    Attributes:
        text: see `packed`.
        pictures: the pictures that the text refers to by number.
        longest: characters kept of a text.
    """

    text: str
    pictures: Pictures
    longest: int


def make_payload(
    sets: Sequence[QuestionSet], runs: Sequence[RunSteps], picture_budget: int, text_budget: int
) -> Payload:
    """Scale the pictures, cut the texts to their budget, and pack it all."""
    questions = [question for each in sets for question in each.questions]
    groups = [group for run in runs for step in run.steps for group in step.groups]
    files: set[PictureSource] = {f for q in questions for f in q.content.pictures}
    files |= {picture for group in groups for picture in group.pictures}
    pictures = Pictures(expected=len(files), budget=picture_budget)
    # The few pictures of training first; then by need, whatever the order on the page.
    for group in groups:
        numbers(pictures, group.pictures)
    for question in by_need(questions):
        numbers(pictures, question.content.pictures)
    lengths = [len(q.content.text) for q in questions]
    lengths += [len(sample.response) for q in questions for sample in q.answers if sample]
    text, longest = "", 0
    for longest in _LONGEST:
        # Packing takes seconds: a length that is far too long is not tried.
        total = sum(min(length, longest) for length in lengths)
        if total > _PACKS * 2 * text_budget and longest != _LONGEST[-1]:
            continue
        text = packed(content(sets, runs, pictures, longest))
        if len(text) <= text_budget:
            break
    return Payload(text=text, pictures=pictures, longest=longest)


def content(
    sets: Sequence[QuestionSet], runs: Sequence[RunSteps], pictures: PictureNumbers, longest: int
) -> dict[str, Any]:
    """Return questions, responses and training groups as JSON values, texts cut at a length."""
    return {
        "sets": [_set(each, pictures, longest) for each in sets],
        "runs": [_run(run, pictures, longest) for run in runs],
    }


def _set(questions: QuestionSet, pictures: PictureNumbers, longest: int) -> dict[str, Any]:
    benchmarks = list(dict.fromkeys(question.key[0] for question in questions.questions))
    place = {name: number for number, name in enumerate(benchmarks)}
    return {
        "title": questions.title,
        "note": questions.note,
        "columns": [
            {"label": c.label, "role": c.role, "subject": c.subject, "colour": c.colour}
            for c in questions.columns
        ],
        "benchmarks": [label(name) for name in benchmarks],
        "questions": [
            [
                place[question.key[0]],
                label(question.key[1]),
                _cut(question.content.text, longest),
                _cut(question.gold, longest),
                numbers(pictures, question.content.pictures),
                question.content.turns,
                [_answer(sample, question, longest) for sample in question.answers],
                _cut(question.stem, longest),
            ]
            for question in questions.questions
        ],
    }


def _answer(sample: Sample | None, question: AnsweredQuestion, longest: int) -> list[Any] | None:
    """Return score, response, extracted answer, judge, tokens, ending, and a gold of its own."""
    if sample is None:
        return None
    other = sample.gold is not None and sample.gold != question.gold
    return [
        sample.score,
        _cut(sample.response, longest),
        None if sample.extracted is None else _cut(sample.extracted, longest),
        None if sample.judge is None else label(sample.judge),
        sample.tokens,
        None if sample.finish_reason in (None, "stop") else label(str(sample.finish_reason)),
        _cut(sample.gold or "", longest) if other else None,
    ]


def _run(run: RunSteps, pictures: PictureNumbers, longest: int) -> dict[str, Any]:
    return {
        "name": label(run.run),
        "steps": [
            {
                "step": step.number,
                "left_out": step.left_out,
                "groups": [_group(group, pictures, longest) for group in step.groups],
            }
            for step in run.steps
        ],
    }


def _group(group: RolloutGroup, pictures: PictureNumbers, longest: int) -> list[Any]:
    return [
        label(group.question_id),
        _cut(group.text.replace("<image>", "").strip(), longest),
        _cut(group.gold, longest),
        label(group.data_set),
        numbers(pictures, group.pictures),
        [_response(response, longest) for response in group.responses],
    ]


def _response(response: GroupResponse, longest: int) -> list[Any]:
    """Return source, text, answer and similarity reward, discriminator, advantage, tokens."""
    return [
        label(response.source),
        _cut(response.response, longest),
        response.answer,
        response.similarity,
        response.discriminator,
        response.advantage,
        response.tokens,
    ]


def _cut(text: str, longest: int) -> str:
    """Return the text, or its start and how many characters are left out."""
    if len(text) <= longest:
        return clean(text)
    return f"{clean(text[:longest])} … [{len(text) - longest} more characters]"
