"""The verdicts for a terminal, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from rilbench.check.compare import Verdict
from rilbench.table.formatting import printable


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """One line for each cell, those that close the gate first within their entry."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("cell", "measured", "bound", "usual", "verdict"):
        table.add_column(head, justify="left" if head in ("cell", "verdict") else "right")
    for label in dict.fromkeys(each.entry for each in verdicts):
        table.add_row(Text(printable(label), style="bold"))
        own = [each for each in verdicts if each.entry == label]
        for each in sorted(own, key=lambda each: each.open):
            table.add_row(*_line(each))
    return table


def _line(verdict: Verdict) -> list[Text]:
    side = "≤" if verdict.lower_is_better else "≥"
    value = "-" if verdict.value is None else f"{verdict.value:.3f}"
    words = f"{verdict.state}: {verdict.why}" if verdict.why else verdict.state
    style = "" if verdict.open else "red"
    cells = (f"  {verdict.cell}", value, f"{side} {verdict.limit:.3f}", f"{verdict.usual:.3f}")
    return [*(Text(cell) for cell in cells), Text(printable(words), style=style)]


def as_json(verdicts: Sequence[Verdict]) -> str:
    """All that is known of each cell."""
    found = [{**dataclasses.asdict(each), "open": each.open} for each in verdicts]
    return json.dumps(found, ensure_ascii=False, indent=2)
