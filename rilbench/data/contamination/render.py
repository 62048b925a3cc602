"""The overlap with the benchmarks as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from rilbench.data.contamination.overlap import Overlap

_COUNTS = {
    "questions": "asked",
    "pictures": "pictures",
    "same image": "same_image",
    "near image": "near_image",
    "same question": "same_question",
    "near question": "near_question",
    "both": "both",
    "met": "met",
}
"""Heading and field of `Tally`."""


def overlap_table(overlap: Overlap) -> Table:
    """Return a table with a row for each benchmark."""
    table = Table(box=None, pad_edge=False)
    table.add_column("benchmark")
    for heading in _COUNTS:
        table.add_column(heading, justify="right")
    for benchmark, tally in overlap.tallies.items():
        if tally.asked:
            table.add_row(benchmark, *(f"{getattr(tally, name):,}" for name in _COUNTS.values()))
        else:
            table.add_row(benchmark, f"not compared: no {', '.join(tally.missing)}")
    return table


def overlap_json(overlap: Overlap, by: str) -> dict[str, Any]:
    """Return the whole report as plain types."""
    return {
        "questions": overlap.questions,
        "overlapping": overlap.overlapping,
        "by": by,
        "dropped": overlap.dropped,
        "benchmarks": {name: asdict(tally) for name, tally in overlap.tallies.items()},
        "rows": overlap.rows,
    }
