"""The notes below the table, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger.records import LEAST_SHARE, Score
from rilbench.table.rounding import number
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, TableRow, in_order

UNLIKE = "≠"
"""Marks a difference that is not computed, since the provenance of the two scores differs."""
ODD = "†"
"""Marks a score whose provenance differs from the rest of its row or column."""
INCOMPLETE = "‡"
"""Marks a score on too few of its questions, which counts in no mean and no difference."""
REPRODUCED = "✓"
"""Marks a number of the paper that another seed might give."""


def notes(
    rows: Sequence[TableRow], columns: Sequence[str] = PAPER_14, *, details: bool = True
) -> list[str]:
    """Return what weakens or explains the measured rows; none for the paper's.

    Args:
        rows: the table's.
        columns: the benchmarks shown.
        details: whether changes and intervals are shown.
    """
    measured = [row for row in rows if row.source == "measured"]
    return [
        *_about_the_mean(measured, columns),
        *(_about_intervals(measured) if details else ()),
        *_about_judges(measured),
        *_about_incomplete(measured),
        *(note for row in measured for note in _about_row(row)),
        *_about_comparisons(measured, details),
    ]


def _about_the_mean(rows: Sequence[TableRow], columns: Sequence[str]) -> Iterator[str]:
    if any(row.suite != "paper" for row in rows):
        yield "The mean is over the benchmarks of the row's own suite."
    others = [name for name in columns if name not in PAPER_14]
    if others and any(row.over and set(row.over) <= set(PAPER_14) for row in rows):
        yield f"The mean is over the paper's benchmarks only, without {', '.join(others)}."


def _about_intervals(rows: Sequence[TableRow]) -> Iterator[str]:
    cells = [cell for row in rows for cell in row.cells.values()]
    if any(cell.questions for cell in cells):
        yield (
            "± questions: half of the 95 % interval over the questions that might have been asked "
            "(bootstrap). For two measured rows: rilbench compare."
        )
    if any(cell.runs or cell.paper is not None for cell in cells):
        yield (
            "± runs: half of the range in which another seed's score falls with 95 % probability; "
            f"unknown below {FEWEST_SEEDS} seeds."
        )
    if any(cell.reproduced for cell in cells):
        yield f"{REPRODUCED}: reproduced: the paper's number lies within that range over seeds."


def _about_judges(rows: Sequence[TableRow]) -> Iterator[str]:
    judges: dict[str, set[str]] = {}
    for row in rows:
        for cell in row.cells.values():
            for score in (origin.score for origin in cell.origins if origin.score.judge):
                judges.setdefault(score.benchmark, set()).add(score.judge or "")
    for benchmark in in_order(judges):
        yield f"{benchmark}: judged by {' and '.join(sorted(judges[benchmark]))}."


def _about_incomplete(rows: Sequence[TableRow]) -> Iterator[str]:
    if any(cell.incomplete for row in rows for cell in row.cells.values()):
        yield (
            f"{INCOMPLETE}: less than {LEAST_SHARE:.0%} of the questions have a verdict; left out "
            "of means and differences. --force averages it."
        )


def _about_row(row: TableRow) -> Iterator[str]:
    name = f"{row.student} {row.method} {row.teacher}"
    benchmarks = in_order(row.scores)
    if row.seeds > 1:
        ids = sorted({e.id for e in row.evaluations if e.id is not None})
        yield f"{name}: the mean of {row.seeds} seeds (evaluations {', '.join(map(str, ids))})."
    for what, where in _weaknesses(row).items():
        if where:
            yield f"{name}: {what}: {', '.join(where)}."
    odd = {b: row.cell(b).odd for b in benchmarks if row.cell(b).odd}
    for parts in dict.fromkeys(odd.values()):
        names = [benchmark for benchmark in odd if odd[benchmark] == parts]
        yield f"{ODD} {name}: {', '.join(names)} made with another {' and '.join(parts)}."
    if row.mixed:
        yield (
            f"{name}: no {AVERAGE}, since the provenance of {', '.join(row.mixed)} differs from "
            "the row's other scores; --force forms it."
        )


def _weaknesses(row: TableRow) -> dict[str, list[str]]:
    """Return what weakens a row's scores, with the benchmarks and their numbers of questions."""
    origins = [origin for b in in_order(row.scores) for origin in row.cell(b).origins]
    scores = [origin.score for origin in origins]
    readings = [(o.score, o.evaluation.reading(o.score.benchmark)) for o in origins]

    def of(score: Score, count: int | str) -> str:
        return f"{score.benchmark} {count} of {score.questions}"

    unverified = [s.benchmark for s in scores if s.data_state == "unverified"]
    sampled = [s.benchmark for s in scores if s.sampled is not None]
    return {
        "missing verdicts": [of(s, s.missing) for s in scores if s.missing],
        "of these without an answer": [
            of(s, ", ".join(f"{cause} {n}" for cause, n in r.no_answer.items()))
            for s, r in readings
            if r.no_answer
        ],
        "empty answers, counted as wrong": [of(s, r.silent) for s, r in readings if r.silent],
        "reasoning dropped before scoring": [
            of(s, r.reasoning) for s, r in readings if r.reasoning
        ],
        "choices that the kit's rules could not read, counted as wrong (eval --judge MODEL@URL "
        "has a judge read them)": [of(s, r.unread) for s, r in readings if r.unread],
        "score with a second reading of those": [
            f"{s.benchmark} {number(r.second)} ({r.second_name}, {r.second_unread} unread)"
            for s, r in readings
            if r.second is not None
        ],
        "the toolkit's own total, no mean of questions": [
            f"{s.benchmark} ({s.metric})" for s, r in readings if r.is_total
        ],
        "answers cut at the longest length": [of(s, s.truncated) for s in scores if s.truncated],
        "data unverified": list(dict.fromkeys(unverified)),
        "a sample of the questions only": list(dict.fromkeys(sampled)),
    }


def _about_comparisons(rows: Sequence[TableRow], details: bool) -> Iterator[str]:
    if details and any(row.unlike for row in rows):
        yield f"{UNLIKE}: not compared, since kit, data, metric or judge differ."
    kits = sorted({row.kit or "an unknown kit" for row in rows})
    if len(kits) > 1:
        yield f"Scores by {' and by '.join(kits)} are not comparable with each other."
