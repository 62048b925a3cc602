"""The verdicts for a terminal, as JSON, and for GitHub Actions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rilbench.check.compare import Verdict
from rilbench.printable import printable, printable_json

HEADS = ("metric", "measured", "bound", "usual", "verdict")


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a line for each metric, those that close the gate first within their entry."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("metric", "verdict") else "right")
    for label, group in _by_entry(verdicts):
        table.add_row(Text(printable(label), style="bold"))
        for verdict in group:
            *cells, words = _cells(verdict)
            style = "" if verdict.open else "red"
            cells[0] = f"  {cells[0]}"
            table.add_row(*map(Text, cells), Text(printable(words), style=style))
    return table


def _by_entry(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, list[Verdict]]]:
    """Yield the verdicts of each entry, those that close the gate first."""
    for label in dict.fromkeys(verdict.entry for verdict in verdicts):
        group = [verdict for verdict in verdicts if verdict.entry == label]
        yield label, sorted(group, key=lambda verdict: verdict.open)


def _cells(verdict: Verdict) -> list[str]:
    """Return the text of a verdict's cells, in the order of `HEADS`."""
    side = "≤" if verdict.lower_is_better else "≥"
    value = "-" if verdict.value is None else f"{verdict.value:.3f}"
    words = f"{verdict.state}: {verdict.why}" if verdict.why else verdict.state
    metric = printable(verdict.metric)
    return [metric, value, f"{side} {verdict.limit:.3f}", f"{verdict.usual:.3f}", words]


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return everything that is known of each verdict."""
    values = [{**dataclasses.asdict(verdict), "open": verdict.open} for verdict in verdicts]
    return printable_json(values)


# ---- GitHub Actions


def append_job_summary(verdicts: Sequence[Verdict], path: Path) -> None:
    """Append the verdicts to a job summary (``GITHUB_STEP_SUMMARY``), as a Markdown table.

    Raises:
        OSError: the file cannot be written.
    """
    closed = sum(not verdict.open for verdict in verdicts)
    lines = [
        f"### rilbench check: {'failed' if closed else 'passed'}",
        "",
        f"{closed} of {len(verdicts)} metrics outside their bounds or not comparable."
        if closed
        else f"{sum(v.state == 'passed' for v in verdicts)} metrics within their bounds.",
    ]
    for label, group in _by_entry(verdicts):
        lines += ["", f"**{_markdown(label)}**", "", f"| | {' | '.join(HEADS)} |"]
        lines.append("| --- | --- | ---: | ---: | ---: | --- |")
        for verdict in group:
            cells = [_markdown(text) for text in _cells(verdict)]
            mark = "✅" if verdict.state == "passed" else "·" if verdict.open else "❌"
            lines.append(f"| {mark} | {' | '.join(cells)} |")
    # Several steps of a job may share the file.
    with path.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n\n")


def _markdown(text: str) -> str:
    """Escape text for a table cell: a label may hold Markdown, HTML or line feeds."""
    return re.sub(r"([\\`*_\[\]<>|~#&@!])", r"\\\1", " ".join(printable(text).split()))


def error_annotations(verdicts: Sequence[Verdict]) -> list[str]:
    """Return an ``::error`` command for each metric that closes the gate."""

    def escape(text: str) -> str:
        return printable(text).replace("%", "%25")

    lines = []
    for verdict in verdicts:
        if not verdict.open:
            title = escape(f"rilbench check: {verdict.metric} {verdict.state}")
            title = title.replace(":", "%3A").replace(",", "%2C")
            lines.append(f"::error title={title}::{escape(f'{verdict.entry}: {verdict.why}')}")
    return lines
