"""Measured rows: the newest scores of each model, or of the seeds of one recipe."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rilbench.benchmark_names import COLUMNS
from rilbench.ledger.records import Evaluation
from rilbench.stats import Interval, prediction_interval
from rilbench.table.comparability import odd_ones, within_column, within_row
from rilbench.table.intervals import Draws, Tallies
from rilbench.table.paper_rows import PaperCells
from rilbench.table.types import (
    AVERAGE,
    FEWEST_SEEDS,
    UNTRAINED,
    Cell,
    Origin,
    TableRow,
    average,
    minus,
)

SuiteColumns = Callable[[str], Sequence[str]]
"""Gives the columns that a suite has, by its name."""

Key = tuple[str | None, ...]


@dataclass(frozen=True)
class Settings:
    """How measured rows are made.

    Attributes:
        suite_columns: the columns of a suite.
        tallies: what the intervals are made from; without, there are none.
        paper: the paper's numbers to compare with.
        over: columns of the average; none for the suite's own.
        force: average also what was made in different ways.
        each_seed: a row for each run instead of one for the seeds of a recipe.
    """

    suite_columns: SuiteColumns
    tallies: Tallies = field(default_factory=dict)
    paper: PaperCells = field(default_factory=lambda: PaperCells([]))
    over: tuple[str, ...] = ()
    force: bool = False
    each_seed: bool = False


@dataclass(frozen=True)
class _Model:
    """One model on one suite by one kit: of each column the newest whole score."""

    newest: Evaluation
    columns: Mapping[str, Origin]

    @property
    def evaluations(self) -> list[Evaluation]:
        return [origin.evaluation for origin in self.columns.values()]


def measured_rows(evaluations: Iterable[Evaluation], settings: Settings) -> list[TableRow]:
    """Return one row for each model, or the seeds of a recipe, by suite and kit.

    They go by student and suite, the untrained model first, then by method, teacher and time.
    """
    models = _models(evaluations)
    starts = {_start_key(each.newest.fingerprint, each.newest): each for each in models}
    groups: dict[Key, list[_Model]] = {}
    for model in models:
        groups.setdefault(_group_key(model.newest, settings.each_seed), []).append(model)

    def order(group: list[_Model]) -> tuple[object, ...]:
        each = group[0].newest
        labels = (each.student, each.suite, each.method != UNTRAINED, each.method, each.teacher)
        return (*labels, each.moment, each.id or 0)

    rows, draws = [], Draws(settings.tallies)
    for group in sorted(map(_by_seed, groups.values()), key=order):
        newest = group[0].newest
        start = starts.get(_start_key(newest.start_fingerprint or "", newest))
        rows.append(_row(group, start, settings, draws))
    return _marked(rows)


def _start_key(fingerprint: str, each: Evaluation) -> Key:
    return (fingerprint, each.suite, each.kit)


def _group_key(each: Evaluation, each_seed: bool) -> Key:
    alike = each.fingerprint if each_seed or each.family is None else each.family
    return (each.student, each.method, each.teacher, each.suite, each.kit, alike)


def _models(evaluations: Iterable[Evaluation]) -> list[_Model]:
    """Newest first. A quick look at a few questions hides no score of all."""
    found: dict[Key, list[Evaluation]] = {}
    for each in sorted(evaluations, key=lambda each: (each.moment, each.id or 0), reverse=True):
        labels = (each.fingerprint, each.student, each.method, each.teacher)
        found.setdefault((*labels, each.suite, each.kit), []).append(each)
    models = []
    for several in found.values():
        columns: dict[str, Origin] = {}
        for each in several:
            for score in each.scores:
                there = columns.get(score.benchmark)
                whole = score.value is not None and not score.partial
                if there is None or (whole and _is_partial(there)):
                    columns[score.benchmark] = Origin(score, each)
        models.append(_Model(several[0], columns))
    return models


def _is_partial(origin: Origin) -> bool:
    return origin.score.value is None or origin.score.partial


def _by_seed(group: list[_Model]) -> list[_Model]:
    """One model of each seed: two runs with the same seed tell nothing of chance."""
    if group[0].newest.family is None:
        return group
    return list({model.newest.seed: model for model in reversed(group)}.values())[::-1]


# ---- a row


def _row(group: list[_Model], start: _Model | None, settings: Settings, draws: Draws) -> TableRow:
    newest = group[0].newest
    columns = settings.over or tuple(settings.suite_columns(newest.suite))
    paper = settings.paper.of(newest.student, newest.method, newest.teacher)
    paper = paper if newest.suite == "paper" else {}
    odd = odd_ones(_ways(group))
    cells = {
        column: _cell(group, column, draws, paper.get(column), odd.get(column, ()))
        for column in COLUMNS
    }
    mixed = tuple(column for column in columns if odd.get(column))
    scores = {column: cells[column].value for column in COLUMNS}
    allowed = settings.force or not mixed
    mean = average(scores, columns) if allowed else None
    cells[AVERAGE] = _average_cell(group, columns, mean, draws, average(paper, columns))
    unlike = _unlike(group, start) if start else ()
    return TableRow(
        source="measured",
        student=newest.student,
        method=newest.method,
        teacher=newest.teacher,
        suite=newest.suite,
        scores=scores,
        average=mean,
        cells=cells,
        difference=_from_start(scores, mean, start, unlike, columns) if start else None,
        unlike=unlike,
        mixed=() if allowed else mixed,
        evaluations=_distinct(group),
        seeds=len(group),
    )


def _ways(group: list[_Model]) -> dict[str, list[dict[str, str | None]]]:
    return {
        column: [within_row(model.columns[column]) for model in group if column in model.columns]
        for column in COLUMNS
    }


def _distinct(group: list[_Model]) -> tuple[Evaluation, ...]:
    every = [each for model in group for each in (model.newest, *model.evaluations)]
    return tuple({each.id or id(each): each for each in every}.values())


def _cell(
    group: list[_Model],
    column: str,
    draws: Draws,
    paper: float | None,
    odd: tuple[str, ...],
) -> Cell:
    """A column of a row; a seed that lacks it leaves it without a mean."""
    origins = tuple(model.columns[column] for model in group if column in model.columns)
    values = [o.score.value for o in origins if o.score.value is not None]
    if len(values) < len(group):
        return Cell(None, origins, paper=paper, odd=odd)
    return Cell(
        value=statistics.fmean(values),
        origins=origins,
        questions=draws.interval([[origin] for origin in origins]),
        runs=_spread(values),
        paper=paper,
        odd=odd,
    )


def _spread(values: Sequence[float]) -> Interval | None:
    return prediction_interval(values) if len(values) >= FEWEST_SEEDS else None


def _average_cell(
    group: list[_Model],
    columns: Sequence[str],
    mean: float | None,
    draws: Draws,
    paper: float | None,
) -> Cell:
    if mean is None:
        return Cell(None, paper=paper)
    seeds = [[model.columns[column] for column in columns] for model in group]
    means = [statistics.fmean(o.score.value or 0.0 for o in origins) for origins in seeds]
    return Cell(mean, questions=draws.interval(seeds), runs=_spread(means), paper=paper)


# ---- beside others


def _unlike(group: list[_Model], start: _Model) -> tuple[str, ...]:
    return tuple(
        column
        for column in COLUMNS
        if column in start.columns
        and any(
            column in model.columns
            and model.columns[column].score.story != start.columns[column].score.story
            for model in group
        )
    )


def _from_start(
    scores: Mapping[str, float | None],
    mean: float | None,
    start: _Model,
    unlike: Sequence[str],
    columns: Sequence[str],
) -> dict[str, float | None]:
    old: dict[str, float | None] = dict.fromkeys(COLUMNS)
    old |= {name: o.score.value for name, o in start.columns.items() if name not in unlike}
    difference = {column: minus(scores[column], old[column]) for column in COLUMNS}
    difference[AVERAGE] = minus(mean, average(old, columns))
    return difference


def _marked(rows: list[TableRow]) -> list[TableRow]:
    """Say also where a cell differs from the others of its column, by suite and kit."""
    columns: dict[tuple[str, str, str], dict[int, list[dict[str, str | None]]]] = {}
    for number, row in enumerate(rows):
        for column in COLUMNS:
            if origins := row.cells[column].origins:
                ways = [within_column(origin) for origin in origins]
                columns.setdefault((row.suite, row.kit, column), {})[number] = ways
    cells = [dict(row.cells) for row in rows]
    for (_, _, column), by_row in columns.items():
        for number, odd in odd_ones(by_row).items():
            cell = cells[number][column]
            both = tuple(dict.fromkeys((*cell.odd, *odd)))
            cells[number][column] = dataclasses.replace(cell, odd=both)
    return [dataclasses.replace(row, cells=own) for row, own in zip(rows, cells, strict=True)]
