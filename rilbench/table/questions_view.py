"""The questions that differ, for a terminal or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from rilbench.ledger import Sample
from rilbench.table.questions import CAUSES, Difference, counts

_LONGEST = 60
"""Characters of a response in a line."""


def summary_table(found: Sequence[Difference]) -> Table:
    """For each benchmark: how many questions were gained and lost, and the causes."""
    present = [cause for cause in CAUSES if any(each.cause == cause for each in found)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("benchmark", "gained", "lost", *present):
        table.add_column(head, justify="left" if head == "benchmark" else "right")
    for benchmark, row in counts(found).items():
        own = [each.change or 0 for each in found if each.benchmark == benchmark]
        gained, lost = sum(c > 0 for c in own), sum(c < 0 for c in own)
        table.add_row(benchmark, str(gained), str(lost), *[str(row[cause]) for cause in present])
    return table


def questions_table(found: Sequence[Difference]) -> Table:
    """One line for each question, cause by cause."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("cause", "benchmark", "question", "gold", "first", "second"):
        table.add_column(head)
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
    response = "".join(c if c.isprintable() else " " for c in sample.response)
    short = response if len(response) <= _LONGEST else response[: _LONGEST - 1] + "…"
    return f"{score}{read} {short}"


def as_json(found: Sequence[Difference]) -> str:
    """All that is known of each question."""
    return json.dumps([dataclasses.asdict(each) for each in found], ensure_ascii=False, indent=2)
