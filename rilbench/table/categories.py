"""A benchmark's score by category: each category is scored as if it were a benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import Tally, category_tallies
from rilbench.ledger.records import Score
from rilbench.stats import tally_mean
from rilbench.table.types import CATEGORY, TableRow

Categories = dict[str, list[str]]
"""By benchmark, the columns of its categories, such as "MMStar: math"."""


def with_categories(
    ledger: Ledger, evaluations: Sequence[Evaluation]
) -> tuple[list[Evaluation], dict[tuple[int, str], Tally], Categories]:
    """Return the evaluations with a score more for each category, and the outcomes of each.

    A category's score is the mean over its questions; if the benchmark's is a mean of groups'
    means, that of the category's groups.

    Raises:
        UserError: no sample has a category, or see `Ledger`.
    """
    counts = category_tallies(ledger, [e.id or 0 for e in evaluations])
    if not counts:
        raise UserError(
            f"{ledger.path} has no sample with a category; evaluate or import again, on a "
            "benchmark whose data have categories"
        )
    found: Categories = {}
    tallies: dict[tuple[int, str], Tally] = {}
    scores: dict[tuple[int, str], list[Score]] = {}
    whole = {(e.id, score.benchmark): score for e in evaluations for score in e.scores}
    for (number, benchmark, category), (tally, missing) in sorted(counts.items()):
        if (score := whole.get((number, benchmark))) is None:
            continue
        column = f"{benchmark}{CATEGORY}{category}"
        if column not in found.setdefault(benchmark, []):
            found[benchmark].append(column)
        if tally:
            tallies[number, column] = tally
        scores.setdefault((number, benchmark), []).append(_score(score, column, tally, missing))
    changed = [
        dataclasses.replace(
            e,
            scores=(
                *e.scores,
                *(c for s in e.scores for c in scores.get((e.id or 0, s.benchmark), ())),
            ),
        )
        for e in evaluations
    ]
    return changed, tallies, {name: sorted(columns) for name, columns in found.items()}


def _score(score: Score, column: str, tally: Tally, missing: int) -> Score:
    questions = sum(sum(outcomes.values()) for outcomes in tally.values()) + missing
    return dataclasses.replace(
        score,
        benchmark=column,
        value=100 * tally_mean(tally) if tally else None,
        questions=questions,
        answered=questions,
        missing=missing,
        truncated=0,
    )


def without_categories(row: TableRow, categories: Mapping[str, Sequence[str]]) -> TableRow:
    """Return a row with its benchmarks alone: what the notes say of them holds of categories."""
    columns = {column for several in categories.values() for column in several}
    return dataclasses.replace(
        row,
        scores={name: value for name, value in row.scores.items() if name not in columns},
        cells={name: cell for name, cell in row.cells.items() if name not in columns},
    )
