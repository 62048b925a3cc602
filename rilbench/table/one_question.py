"""One question of an evaluation: what was asked, what was said, and how it was scored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from rilbench.errors import UserError
from rilbench.evaluate.asked_questions import (
    QuestionContent,
    benchmarks_of_datasets,
    questions_folder,
    read_contents,
)
from rilbench.ledger import Evaluation, Ledger, Sample
from rilbench.ledger.queries import find_sample, question_ids
from rilbench.printable import printable, printable_json
from rilbench.table.formatting import grid

_NEAREST = 3
"""How many names an error offers."""


@dataclass(frozen=True)
class OneQuestion:
    """A sample with its question; without the prompts' folder, only the stem is known."""

    evaluation: Evaluation
    sample: Sample
    content: QuestionContent


def find_question(ledger: Ledger, evaluation: Evaluation, name: str) -> OneQuestion:
    """Return the question that is called BENCHMARK/ID, such as "AI2D/17".

    Raises:
        UserError: the evaluation has no such benchmark or question; the nearest names are told.
    """
    benchmark, _, question = name.partition("/")
    number = evaluation.id or 0
    known = question_ids(ledger, number)
    if not known:
        raise UserError(f"evaluation {number} has scores alone; take one with responses")
    by_case = {column.lower(): column for column in known}
    if (column := by_case.get(benchmark.lower())) is None:
        near = _nearest(benchmark, list(known))
        raise UserError(
            f"evaluation {number} has no responses of the benchmark {benchmark!r}; nearest: {near}"
        )
    sample = find_sample(ledger, number, column, question)
    if sample is None:
        near = _nearest(question, known[column])
        raise UserError(
            f"evaluation {number} has no question {question!r} of {column}; nearest: "
            f"{near}; give --question {column}/ID"
        )
    folder, key = questions_folder(evaluation), (column, question)
    contents = read_contents(folder, benchmarks_of_datasets([evaluation])) if folder else {}
    content = contents.get(key, QuestionContent(""))
    if not content.text:
        content = dataclasses.replace(content, text=sample.stem or "")
    return OneQuestion(evaluation, sample, content)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, _NEAREST, cutoff=0.0)
    return ", ".join(printable(found) for found in near)


def asked(found: OneQuestion) -> Iterator[Text]:
    """Yield the question's text; `answered` follows, and between them its pictures."""
    sample, evaluation = found.sample, found.evaluation
    labels = f"{evaluation.student} {evaluation.method} {evaluation.teacher}"
    title = f"{sample.benchmark}/{sample.question_id} of evaluation {evaluation.id}: {labels}"
    yield Text(printable(title), style="bold")
    yield Text()
    yield Text(printable(found.content.text, keep_lines=True) or "(the question is not recorded)")
    if found.content.turns > 1:
        yield Text(f"asked in {found.content.turns} rotations; this is the first", style="dim")


def answered(found: OneQuestion) -> Iterator[Text | Table]:
    """Yield the response and how it was scored."""
    sample = found.sample
    yield Text("\nresponse", style="bold")
    yield Text(printable(sample.response, keep_lines=True) or "(empty)")
    yield Text()
    score = "no verdict" if sample.score is None else f"{sample.score:g}"
    facts = {
        "extracted": sample.extracted,
        "gold": sample.gold,
        "score": score,
        "judge": sample.judge or "none: the kit's rules",
        "tokens": sample.tokens,
        "seconds": None if sample.seconds is None else f"{sample.seconds:.1f}",
        "finish reason": sample.finish_reason,
        "group": sample.stratum or None,
    }
    table = grid("", "")
    table.show_header = False
    for name, value in facts.items():
        if value is not None:
            table.add_row(Text(name, style="dim"), Text(printable(str(value))))
    yield table


def as_json(found: OneQuestion) -> str:
    """Return the question, the files of its pictures, and the sample."""
    record: dict[str, Any] = {
        "evaluation": found.evaluation.id,
        "question": found.content.text,
        "pictures": [str(picture) for picture in found.content.pictures],
        "rotations": found.content.turns,
        **dataclasses.asdict(found.sample),
    }
    return printable_json(record)
