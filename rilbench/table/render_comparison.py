"""A comparison for a terminal or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rilbench.ledger import Evaluation, Sample
from rilbench.table.comparison import Comparison
from rilbench.table.formatting import printable, signed
from rilbench.table.paired_test import Paired
from rilbench.table.question_diff import CAUSES, Difference, counts
from rilbench.table.types import AVERAGE

_LONGEST = 60
"""Characters of a response in a line."""


def show(found: Comparison, questions: bool) -> Iterator[Table | Text]:
    """Yield what is to be printed; the single questions only where they are asked for."""
    for word, each in (("first", found.first), ("second", found.second)):
        yield Text(printable(f"{word}: {_name(each)} by {each.kit}, {each.path}"))
    yield Text()
    yield benchmarks_table(found.benchmarks)
    for parts in dict.fromkeys(each.unlike for each in found.benchmarks if each.unlike):
        names = [each.benchmark for each in found.benchmarks if each.unlike == parts]
        differ = ", ".join(name for name in names if name != AVERAGE)
        if differ:
            yield Text(f"not made alike: {differ} differ in {' and '.join(parts)}", style="yellow")
    yield Text(
        "p: McNemar's exact test, or sign flips for graded answers; by Holm over the benchmarks.",
        style="dim",
    )
    yield Text()
    if not found.questions:
        yield Text("no question has another outcome")
        return
    yield Text("questions with another outcome, by cause", style="bold")
    yield causes_table(found.questions)
    if questions:
        yield Text()
        yield questions_table(found.questions)


def _name(each: Evaluation) -> str:
    return f"{each.id} {each.student} {each.method} {each.teacher}"


def _grid(*heads: str, left: Sequence[str] = ("benchmark",)) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head in left else "right")
    return table


def benchmarks_table(found: Sequence[Paired]) -> Table:
    """The difference of each benchmark with its interval and test."""
    heads = ("benchmark", "n", "first", "second", "change", "95 %", "p", "gained", "lost")
    left = ("benchmark", "the second is")
    table = _grid(*heads, "the second is", left=left)
    for column in table.columns:
        column.no_wrap = True
    for each in found:
        interval = f"{signed(each.difference.low)} to {signed(each.difference.high)}"
        name = "mean" if each.benchmark == AVERAGE else each.benchmark
        scores = (f"{each.first:.1f}", f"{each.second:.1f}", signed(each.difference.mean))
        p = "" if each.adjusted is None else _p(each.adjusted)
        changes = (str(each.gained), str(each.lost), each.verdict)
        table.add_row(name, str(each.questions), *scores, interval, p, *changes)
    return table


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def causes_table(found: Sequence[Difference]) -> Table:
    """For each benchmark: how many questions differ, by cause."""
    present = [cause for cause in CAUSES if any(each.cause == cause for each in found)]
    table = _grid("benchmark", *present)
    for benchmark, row in counts(found).items():
        table.add_row(benchmark, *[str(row[cause]) for cause in present])
    return table


def questions_table(found: Sequence[Difference]) -> Table:
    """One line for each question, cause by cause."""
    heads = ("cause", "benchmark", "question", "gold", "first", "second")
    table = _grid(*heads, left=heads)
    for each in sorted(found, key=lambda each: CAUSES.index(each.cause)):
        sample = each.first or each.second
        assert sample is not None
        cells = (each.cause, each.benchmark, each.question_id, sample.gold or "")
        table.add_row(*[Text(c) for c in (*cells, _side(each.first), _side(each.second))])
    return table


def _side(sample: Sample | None) -> str:
    """Score, what the kit read, and the response on one line."""
    if sample is None:
        return "not asked"
    score = "no verdict" if sample.score is None else f"{sample.score:g}"
    read = "" if sample.extracted is None else f" [{sample.extracted}]"
    response = printable(sample.response)
    short = response if len(response) <= _LONGEST else response[: _LONGEST - 1] + "…"
    return f"{score}{read} {short}"


def as_json(found: Comparison) -> str:
    """All that is known of the benchmarks and of each question that differs."""
    sides = {"first": found.first, "second": found.second}
    names = ("id", "path", "student", "method", "teacher", "suite", "kit")
    record: dict[str, Any] = {
        side: {name: getattr(each, name) for name in names} for side, each in sides.items()
    }
    record["benchmarks"] = [
        {**dataclasses.asdict(each), "verdict": each.verdict} for each in found.benchmarks
    ]
    record["questions"] = [dataclasses.asdict(each) for each in found.questions]
    return json.dumps(record, ensure_ascii=False, indent=2)
