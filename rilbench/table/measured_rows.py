"""Measured rows: the newest scores of each model, or of all seeds of one recipe."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rilbench.benchmark_names import PAPER_14
from rilbench.ledger.records import Evaluation
from rilbench.stats import Interval, prediction_interval
from rilbench.table.comparability import Parts, odd_ones, within_column, within_row
from rilbench.table.intervals import ResampledScores, Tallies
from rilbench.table.paper_rows import PaperCells
from rilbench.table.types import (
    AVERAGE,
    FEWEST_SEEDS,
    UNTRAINED,
    Origin,
    TableCell,
    TableRow,
    average,
    benchmark_of,
    in_order,
    minus,
)

SuiteColumns = Callable[[str], Sequence[str]]
"""Returns the benchmarks of a suite, by its name."""


@dataclass(frozen=True)
class Settings:
    """How measured rows are made.

    Attributes:
        suite_columns: the benchmarks of a suite.
        tallies: counts of outcomes for the intervals; without, there are no intervals.
        paper: the paper's numbers, to compare with.
        over: benchmarks of the average; if empty, the paper's in the row's suite.
        force: average scores of different provenance, too.
        each_seed: one row per run instead of one for all seeds of a recipe.
    """

    suite_columns: SuiteColumns
    tallies: Tallies = field(default_factory=dict)
    paper: PaperCells = field(default_factory=lambda: PaperCells([]))
    over: tuple[str, ...] = ()
    force: bool = False
    each_seed: bool = False


@dataclass(frozen=True)
class EvaluatedModel:
    """One model on one suite by one kit, with the newest score of each benchmark that stands."""

    newest: Evaluation
    origins: Mapping[str, Origin]


def measured_rows(evaluations: Iterable[Evaluation], settings: Settings) -> list[TableRow]:
    """Return one row per model, or per recipe with its seeds, by suite and kit.

    The rows are sorted by student and suite, the untrained model first, then by method, teacher
    and time.
    """
    models = evaluated_models(evaluations)

    def start_key(fingerprint: str | None, e: Evaluation) -> tuple[str | None, ...]:
        return (fingerprint, e.suite, e.kit)

    starts = {start_key(model.newest.fingerprint, model.newest): model for model in models}
    groups: dict[tuple[str | None, ...], list[EvaluatedModel]] = {}
    for model in models:
        e = model.newest
        same = e.fingerprint if settings.each_seed or e.family is None else e.family
        key = (e.student, e.method, e.teacher, e.suite, e.kit, same)
        groups.setdefault(key, []).append(model)

    def order(group: list[EvaluatedModel]) -> tuple[object, ...]:
        e = group[0].newest
        labels = (e.student, e.suite, e.method != UNTRAINED, e.method, e.teacher)
        return (*labels, e.moment, e.id or 0)

    resampled = ResampledScores(settings.tallies)
    rows = []
    for group in sorted(map(one_per_seed, groups.values()), key=order):
        newest = group[0].newest
        start = starts.get(start_key(newest.start_fingerprint, newest))
        rows.append(_row(group, start, settings, resampled))
    return _with_odd_columns(rows)


def evaluated_models(evaluations: Iterable[Evaluation]) -> list[EvaluatedModel]:
    """Return the evaluated models, newest first.

    The newest score of a benchmark counts, but a quick look at a few questions hides no score over
    all of them. Its categories' scores are those of the same evaluation.
    """
    by_model: dict[tuple[str, ...], list[Evaluation]] = {}
    for e in sorted(evaluations, key=lambda e: (e.moment, e.id or 0), reverse=True):
        key = (e.fingerprint, e.student, e.method, e.teacher, e.suite, e.kit)
        by_model.setdefault(key, []).append(e)
    models = []
    for evaluated in by_model.values():
        chosen: dict[str, Origin] = {}
        for e in evaluated:
            for score in e.scores:
                newer = chosen.get(score.benchmark)
                if newer is None or (score.stands and not newer.score.stands):
                    chosen[score.benchmark] = Origin(score, e)
        # A category goes with its benchmark.
        origins = {
            score.benchmark: Origin(score, e)
            for e in evaluated
            for score in e.scores
            if chosen.get(benchmark_of(score.benchmark), chosen[score.benchmark]).evaluation is e
        }
        models.append(EvaluatedModel(evaluated[0], origins))
    return models


def one_per_seed(group: list[EvaluatedModel]) -> list[EvaluatedModel]:
    """Keep the newest model of each seed: two runs of one seed say nothing about chance."""
    if group[0].newest.family is None:
        return group
    return list({model.newest.seed: model for model in reversed(group)}.values())[::-1]


def _row(
    group: list[EvaluatedModel],
    start: EvaluatedModel | None,
    settings: Settings,
    resampled: ResampledScores,
) -> TableRow:
    newest = group[0].newest
    benchmarks = in_order([*PAPER_14, *(name for model in group for name in model.origins)])
    # A suite with other benchmarks still has the paper's mean, never one over more.
    over = settings.over or tuple(
        name for name in settings.suite_columns(newest.suite) if name in PAPER_14
    )
    cells = _cells(group, benchmarks, settings, resampled)
    # An incomplete score is shown, and counts in no mean and no difference.
    counted = {
        name: cell.value if settings.force or not cell.incomplete else None
        for name, cell in cells.items()
    }
    mixed = () if settings.force else tuple(n for n in over if n in cells and cells[n].odd)
    mean = None if mixed else average(counted, over)
    cells[AVERAGE] = _mean_cell(mean, group, cells, over, resampled)

    unlike: tuple[str, ...] = ()
    difference = None
    if start is not None:
        before = start.origins
        unlike = tuple(
            name
            for name in benchmarks
            if name in before
            and any(
                origin.score.provenance != before[name].score.provenance
                for origin in cells[name].origins
            )
        )
        old: dict[str, float | None] = dict.fromkeys(benchmarks)
        old |= {name: o.score.counted for name, o in before.items() if name not in unlike}
        difference = {name: minus(counted[name], old[name]) for name in benchmarks}
        difference[AVERAGE] = minus(mean, average(old, over))

    # Only those that a number is from; a newer one that asked a few questions gives none.
    used = [o.evaluation for model in group for o in model.origins.values()] or [newest]
    each = {e.id or id(e): e for e in used}.values()
    return TableRow(
        source="measured",
        student=newest.student,
        method=newest.method,
        teacher=newest.teacher,
        suite=newest.suite,
        scores={name: cells[name].value for name in benchmarks},
        average=mean,
        over=over,
        cells=cells,
        difference=difference,
        unlike=unlike,
        mixed=mixed,
        evaluations=tuple(sorted(each, key=lambda e: (e.moment, e.id or 0), reverse=True)),
        seeds=len(group),
    )


def _cells(
    group: list[EvaluatedModel],
    benchmarks: Sequence[str],
    settings: Settings,
    resampled: ResampledScores,
) -> dict[str, TableCell]:
    """The cells of the benchmarks, in their order; each is the mean of the seeds."""
    newest = group[0].newest
    paper: Mapping[str, float | None] = {}
    if newest.suite == "paper":
        paper = settings.paper.of(newest.student, newest.method, newest.teacher)
    origins = {
        name: tuple(model.origins[name] for model in group if name in model.origins)
        for name in benchmarks
    }
    odd = odd_ones({name: [within_row(o) for o in seeds] for name, seeds in origins.items()})
    cells = {}
    for name, seeds in origins.items():
        values = [o.score.value for o in seeds if o.score.value is not None]
        differing = _differing(seeds)
        cell = TableCell(None, seeds, odd=tuple(dict.fromkeys((*odd[name], *differing))))
        if not any(o.score.sampled for o in seeds):
            cell = dataclasses.replace(cell, paper=paper.get(name))
        # Nor are seeds averaged that were made differently; and the mean of some of them only
        # would be another number.
        if len(values) == len(group) and (settings.force or not differing):
            cell = dataclasses.replace(
                cell,
                value=statistics.fmean(values),
                questions=resampled.interval([[origin] for origin in seeds]),
                runs=_spread(values),
                published=all(o.score.data_state == "published" for o in seeds),
            )
        cells[name] = cell
    return cells


def _mean_cell(
    mean: float | None,
    group: list[EvaluatedModel],
    cells: Mapping[str, TableCell],
    over: Sequence[str],
    resampled: ResampledScores,
) -> TableCell:
    """The cell of the row's mean over the benchmarks ``over``."""
    here = {name: cells[name] for name in over if name in cells}
    cell = TableCell(
        mean,
        paper=average({name: each.paper for name, each in here.items()}, over),
        published=all(each.published for each in here.values()),
    )
    if mean is None:
        return cell
    seeds = [[model.origins[name] for name in over] for model in group]
    means = [statistics.fmean(o.score.value or 0.0 for o in seed) for seed in seeds]
    return dataclasses.replace(cell, questions=resampled.interval(seeds), runs=_spread(means))


def _differing(seeds: Sequence[Origin]) -> tuple[str, ...]:
    """In which parts of their provenance the seeds of one benchmark differ."""
    parts = [within_column(seed) for seed in seeds]
    return tuple(p for p in parts[0] if len({each[p] for each in parts}) > 1) if parts else ()


def _spread(values: Sequence[float]) -> Interval | None:
    return prediction_interval(values) if len(values) >= FEWEST_SEEDS else None


def _with_odd_columns(rows: list[TableRow]) -> list[TableRow]:
    """Mark also the cells that differ from the others of their column, by suite and kit."""
    columns: dict[tuple[str, str, str], dict[int, list[Parts]]] = {}
    for number, row in enumerate(rows):
        for name in row.scores:
            if origins := row.cells[name].origins:
                parts = [within_column(origin) for origin in origins]
                columns.setdefault((row.suite, row.kit, name), {})[number] = parts
    cells = [dict(row.cells) for row in rows]
    for (_, _, name), by_row in columns.items():
        for number, odd in odd_ones(by_row).items():
            cell = cells[number][name]
            both = tuple(dict.fromkeys((*cell.odd, *odd)))
            cells[number][name] = dataclasses.replace(cell, odd=both)
    return [dataclasses.replace(row, cells=c) for row, c in zip(rows, cells, strict=True)]
