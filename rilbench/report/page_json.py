"""What the page's script reads: questions, answers and training groups, short and compressed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rilbench.ledger import Sample
from rilbench.report.escaping import clean, label, packed
from rilbench.report.pictures import Pictures, Source, numbers
from rilbench.report.questions import Question, QuestionSet, by_need
from rilbench.report.rollout_groups import Group, GroupRow, Step

BUDGET = 5_500_000
"""Characters that all texts may take on the page, compressed."""

_LONGEST = (6000, 3000, 1500, 800, 400, 200, 100)
"""Characters of an answer that are kept: the first of these with which the page is small enough."""
_PACKS = 2.0
"""How many characters of text fit into one of the page, at least about."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The recorded steps of one run."""

    run: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Payload:
    """What the page embeds.

    Attributes:
        text: see `packed`.
        pictures: the pictures that the text numbers.
        longest: characters of an answer that were kept.
    """

    text: str
    pictures: Pictures
    longest: int


def make_payload(
    sets: Sequence[QuestionSet], runs: Sequence[Steps], picture_budget: int, text_budget: int
) -> Payload:
    """Scale the pictures, cut the texts to their budget, and pack it all."""
    pictures = Pictures(expected=_expected(sets, runs), budget=picture_budget)
    # The few pictures of training first; then by need, whatever the order on the page.
    for group in _groups(runs):
        numbers(pictures, group.pictures)
    found: dict[int, Sequence[int | str]] = {}
    for question in by_need(question for own in sets for question in own.questions):
        found[id(question)] = numbers(pictures, question.asked.pictures)
    total = _characters(sets)
    text, longest = "", 0
    for longest in _LONGEST:
        if total(longest) > _PACKS * 2 * text_budget and longest != _LONGEST[-1]:
            continue
        value = {
            "sets": [_set(own, found, longest) for own in sets],
            "runs": [_steps(own, pictures, longest) for own in runs],
        }
        text = packed(value)
        if len(text) <= text_budget:
            break
    return Payload(text=text, pictures=pictures, longest=longest)


def _expected(sets: Sequence[QuestionSet], runs: Sequence[Steps]) -> int:
    files: set[Source] = {f for own in sets for q in own.questions for f in q.asked.pictures}
    files |= {picture for group in _groups(runs) for picture in group.pictures}
    return len(files)


def _groups(runs: Iterable[Steps]) -> Iterable[Group]:
    return (group for run in runs for step in run.steps for group in step.groups)


def _characters(sets: Sequence[QuestionSet]) -> Any:
    """How many characters there are when each text is cut to a length."""
    lengths = [len(q.asked.text) for own in sets for q in own.questions]
    answers = (a for own in sets for q in own.questions for a in q.answers if a is not None)
    lengths += [len(answer.response) for answer in answers]
    return lambda longest: sum(min(length, longest) for length in lengths)


def _set(
    own: QuestionSet, found: Mapping[int, Sequence[int | str]], longest: int
) -> dict[str, Any]:
    benchmarks = list(dict.fromkeys(question.key[0] for question in own.questions))
    place = {name: number for number, name in enumerate(benchmarks)}
    return {
        "title": own.title,
        "note": own.note,
        "columns": [{"label": c.label, "role": c.role, "run": c.run} for c in own.columns],
        "benchmarks": [label(name) for name in benchmarks],
        "questions": [
            [
                place[question.key[0]],
                label(question.key[1]),
                _cut(question.asked.text, longest),
                _cut(question.gold, longest),
                found[id(question)],
                question.asked.turns,
                [_answer(each, question, longest) for each in question.answers],
                _cut(question.stem, longest),
            ]
            for question in own.questions
        ],
    }


def _answer(sample: Sample | None, question: Question, longest: int) -> list[Any] | None:
    """Score, response, what the kit read, judge, tokens, how it ended, a gold of its own."""
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


def _steps(own: Steps, pictures: Pictures, longest: int) -> dict[str, Any]:
    return {
        "name": label(own.run),
        "steps": [
            {
                "step": step.number,
                "left_out": step.left_out,
                "groups": [_group(group, pictures, longest) for group in step.groups],
            }
            for step in own.steps
        ],
    }


def _group(group: Group, pictures: Pictures, longest: int) -> list[Any]:
    return [
        label(group.question_id),
        _cut(group.text.replace("<image>", "").strip(), longest),
        _cut(group.gold, longest),
        label(group.data_set),
        numbers(pictures, group.pictures),
        [_row(row, longest) for row in group.rows],
    ]


def _row(row: GroupRow, longest: int) -> list[Any]:
    figures = (row.answer, row.similarity, row.discriminator, row.advantage)
    return [label(row.source), _cut(row.response, longest), *figures, row.tokens]


def _cut(text: str, longest: int) -> str:
    """The text, or its start with a word of how much is not shown."""
    if len(text) <= longest:
        return clean(text)
    return f"{clean(text[:longest])} … [{len(text) - longest} more characters]"
