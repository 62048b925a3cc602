"""What a reader must know beside the numbers, a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rilbench.benchmark_names import COLUMNS
from rilbench.ledger import Score
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, TableRow

UNLIKE = "≠"
"""Not compared, since the two were made in different ways."""
ODD = "†"
"""Made otherwise than the others of its row or column."""
REPRODUCED = "✓"
"""The paper's number is one that another seed might give."""


def notes(rows: Sequence[TableRow]) -> list[str]:
    """Return what weakens or explains the measured rows; none for the paper's."""
    measured = [row for row in rows if row.source == "measured"]
    found: list[str] = []
    if any(row.suite != "paper" for row in measured):
        found.append("The mean is over the benchmarks of the row's own suite.")
    found += _figures(measured)
    found += _judges(measured)
    for row in measured:
        found += _row_notes(row)
    if any(row.unlike for row in rows):
        found.append(f"{UNLIKE}: not compared, since kit, data, metric or judge differ.")
    kits = sorted({row.kit for row in measured})
    if len(kits) > 1:
        found.append(f"Scores by {' and by '.join(kits)} are not comparable with each other.")
    return found


def _figures(rows: Sequence[TableRow]) -> Iterator[str]:
    cells = [cell for row in rows for cell in row.cells.values()]
    if any(cell.questions for cell in cells):
        yield (
            "± questions: half of the 95 % interval over the questions that might have been asked "
            "(bootstrap). For two measured rows: rilbench compare."
        )
    if any(cell.runs for cell in cells) or any(cell.paper is not None for cell in cells):
        yield (
            "± runs: half of the range in which another seed's score falls with 95 % probability; "
            f"unknown below {FEWEST_SEEDS} seeds."
        )
    if any(cell.reproduced for cell in cells):
        yield f"{REPRODUCED}: reproduced: the paper's number lies within that range over seeds."


def _judges(rows: Sequence[TableRow]) -> Iterator[str]:
    for column in COLUMNS:
        judges = {score.judge for row in rows for score in _scores(row, column) if score.judge}
        if judges:
            yield f"{column}: judged by {' and '.join(sorted(judges))}."


def _scores(row: TableRow, column: str) -> list[Score]:
    return [origin.score for origin in row.cells[column].origins] if row.cells else []


def _row_notes(row: TableRow) -> Iterator[str]:
    name = f"{row.student} {row.method} {row.teacher}"
    numbers = sorted({each.id for each in row.evaluations if each.id is not None})
    if row.seeds > 1:
        which = ", ".join(map(str, numbers))
        yield f"{name}: the mean of {row.seeds} seeds (evaluations {which})."
    every = [score for column in COLUMNS for score in _scores(row, column)]
    missing = [f"{s.benchmark} {s.missing} of {s.questions}" for s in every if s.missing]
    cut = [f"{s.benchmark} {s.truncated} of {s.questions}" for s in every if s.truncated]
    if missing:
        yield f"{name}: missing verdicts: {', '.join(missing)}."
    if cut:
        yield f"{name}: answers cut at the longest length: {', '.join(cut)}."
    for what, weak in (
        ("data unverified", [s.benchmark for s in every if s.data_state == "unverified"]),
        ("a sample of the questions only", [s.benchmark for s in every if s.sampled is not None]),
    ):
        if weak:
            yield f"{name}: {what}: {', '.join(dict.fromkeys(weak))}."
    odd = {column: row.cells[column].odd for column in COLUMNS if row.cells[column].odd}
    for parts in dict.fromkeys(odd.values()):
        columns = [column for column, each in odd.items() if each == parts]
        yield f"{ODD} {name}: {', '.join(columns)} made with another {' and '.join(parts)}."
    if row.mixed:
        yield (
            f"{name}: no {AVERAGE}, since {', '.join(row.mixed)} were made otherwise than the "
            "row's other scores; --force forms it."
        )
