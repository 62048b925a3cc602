"""What overlaps with the benchmarks, as a table and for a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from rilbench.data.contamination.overlap import Overlap, Tally

_HEADS = (
    *("benchmark", "questions", "pictures", "same image", "near image", "same question"),
    *("near question", "both", "met"),
)


def overlap_table(found: Overlap) -> Table:
    """A row for each benchmark; its numbers are of the questions to train on, but the last."""
    table = Table(box=None, pad_edge=False)
    for head in _HEADS:
        table.add_column(head, justify="left" if head == "benchmark" else "right")
    for column, tally in found.tallies.items():
        table.add_row(column, *_cells(tally))
    return table


def _cells(tally: Tally) -> list[str]:
    if not tally.asked:
        return [f"not compared: no {', '.join(tally.missing)}"]
    counts = (
        *(tally.asked, tally.pictures, tally.same_image, tally.near_image, tally.same_question),
        *(tally.near_question, tally.both, tally.met),
    )
    return [f"{count:,}" for count in counts]


def overlap_json(found: Overlap, by: str) -> dict[str, Any]:
    """The whole report."""
    return {
        "questions": found.questions,
        "overlapping": found.overlapping,
        "by": by,
        "dropped": found.dropped,
        "benchmarks": {column: asdict(tally) for column, tally in found.tallies.items()},
        "rows": found.rows,
    }
