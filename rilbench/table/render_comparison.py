"""A comparison for a terminal or as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rilbench.ledger import Evaluation, Sample
from rilbench.ledger.records import LEAST_SHARE
from rilbench.printable import printable, printable_json
from rilbench.table.comparison import Comparison
from rilbench.table.formatting import grid
from rilbench.table.paired_test import Paired
from rilbench.table.question_diff import CAUSES, Difference, counts
from rilbench.table.render_recipes import settings_table
from rilbench.table.rounding import number, signed
from rilbench.table.types import AVERAGE

_LONGEST = 60
"""Characters of a response on one line."""


def show(comparison: Comparison, questions: bool, only: str = "") -> Iterator[Table | Text]:
    """Yield the parts to print; the single questions only if they are asked for.

    Args:
        comparison: of two evaluations.
        questions: whether the single questions are asked for.
        only: "gained" or "lost" for those alone.
    """
    benchmarks = comparison.benchmarks

    def name(e: Evaluation) -> str:
        return f"{e.id} {e.student} {e.method} {e.teacher} by {e.kit}, {e.path}"

    yield Text(printable(f"first: {name(comparison.first)}"))
    yield Text(printable(f"second: {name(comparison.second)}"))
    yield Text()
    yield benchmarks_table(benchmarks)
    for parts in dict.fromkeys(b.unlike for b in benchmarks if b.unlike):
        names = [b.benchmark for b in benchmarks if b.unlike == parts and b.benchmark != AVERAGE]
        if names:
            text = f"not comparable: {', '.join(names)} differ in {' and '.join(parts)}"
            yield Text(printable(text), style="yellow")
    if incomplete := [b.benchmark for b in benchmarks if b.incomplete]:
        share = f"less than {LEAST_SHARE:.0%} of the questions have a verdict on one side"
        text = f"incomplete: {', '.join(incomplete)}: {share}; not decided"
        yield Text(printable(text), style="yellow")
    if totals := [
        b.benchmark
        for b in benchmarks
        if any(side.reading(b.benchmark).is_total for side in (comparison.first, comparison.second))
    ]:
        text = f"{', '.join(totals)}: right answers are compared, not the toolkit's totals"
        yield Text(printable(text), style="yellow")
    if benchmarks[-1].over and len(benchmarks[-1].over) < len(benchmarks) - 1:
        over = ", ".join(benchmarks[-1].over)
        yield Text(f"mean: over the paper's comparable benchmarks only, {over}", style="dim")
    yield Text(
        "p: McNemar's exact test, or sign flips for graded answers; by Holm over the benchmarks.",
        style="dim",
    )
    yield from settings_table(comparison.settings)
    yield Text()
    if not comparison.questions:
        yield Text("no question has another outcome")
        return
    yield Text("questions with another outcome, by cause", style="bold")
    yield causes_table(comparison.questions)
    if questions:
        yield Text()
        chosen = comparison.changed(only)
        yield questions_table(chosen) if chosen else Text(f"no question was {only}")


def benchmarks_table(benchmarks: Sequence[Paired]) -> Table:
    """Return the difference of each benchmark with its interval and test."""
    numbers = ("n", "first", "second", "change", "95 %", "p", "gained", "lost")
    table = grid("benchmark", *numbers, "the second is", right=numbers)
    for column in table.columns:
        column.no_wrap = True
    for b in benchmarks:
        p = "" if b.adjusted is None else f"{b.adjusted:.3f}"
        table.add_row(
            Text("mean" if b.benchmark == AVERAGE else printable(b.benchmark)),
            str(b.questions),
            number(b.first),
            number(b.second),
            signed(b.difference.mean),
            f"{signed(b.difference.low)} to {signed(b.difference.high)}",
            "<0.001" if b.adjusted is not None and b.adjusted < 0.001 else p,
            str(b.gained),
            str(b.lost),
            b.verdict,
        )
    return table


def causes_table(questions: Sequence[Difference]) -> Table:
    """Return for each benchmark how many questions differ, by cause."""
    present = [cause for cause in CAUSES if any(q.cause == cause for q in questions)]
    table = grid("benchmark", *present, right=present)
    for benchmark, row in counts(questions).items():
        table.add_row(Text(printable(benchmark)), *[str(row[cause]) for cause in present])
    return table


def questions_table(questions: Sequence[Difference]) -> Table:
    """Return one line for each question, sorted by cause."""
    table = grid("cause", "benchmark", "question", "gold", "first", "second")
    for question in sorted(questions, key=lambda question: CAUSES.index(question.cause)):
        sample = question.first or question.second
        assert sample is not None
        table.add_row(
            question.cause,
            *[
                Text(printable(text))
                for text in (
                    question.benchmark,
                    question.question_id,
                    sample.gold or "",
                    _outcome(question.first),
                    _outcome(question.second),
                )
            ],
        )
    return table


def _outcome(sample: Sample | None) -> str:
    """Return score, extracted answer and response on one line."""
    if sample is None:
        return "not asked"
    score = "no verdict" if sample.score is None else f"{sample.score:g}"
    extracted = "" if sample.extracted is None else f" [{sample.extracted}]"
    response = sample.response
    short = response if len(response) <= _LONGEST else response[: _LONGEST - 1] + "…"
    return f"{score}{extracted} {short}"


def as_json(comparison: Comparison, only: str = "") -> str:
    """Return everything about the benchmarks and about each question that differs.

    Args:
        comparison: of two evaluations.
        only: "gained" or "lost" for those questions alone.
    """
    names = ("id", "path", "student", "method", "teacher", "suite", "kit")
    record: dict[str, Any] = {
        side: {name: getattr(evaluation, name) for name in names}
        for side, evaluation in (("first", comparison.first), ("second", comparison.second))
    }
    record["benchmarks"] = [
        {**dataclasses.asdict(b), "verdict": b.verdict} for b in comparison.benchmarks
    ]
    record["settings"] = comparison.settings
    record["questions"] = [dataclasses.asdict(question) for question in comparison.changed(only)]
    return printable_json(record)
