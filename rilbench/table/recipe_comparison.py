"""Two recipes over seeds: the differences of the runs that share a seed, and their test."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger
from rilbench.stats import Interval, detectable_difference, holm, seed_interval, seed_p_value
from rilbench.table.build import choose_benchmarks
from rilbench.table.comparability import within_column
from rilbench.table.measured_rows import EvaluatedModel, evaluated_models, one_per_seed
from rilbench.table.paired_test import LEVEL
from rilbench.table.question_diff import find_evaluation
from rilbench.table.recipe_diff import SettingDifferences, differing_settings
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, Origin, in_order

_SHORTEST = 6
"""Digits of a family's fingerprint that name it."""


@dataclass(frozen=True)
class Recipe:
    """The models that one recipe trained on one student, by seed, on one suite by one kit."""

    labels: tuple[str, ...]
    """Student, method, teacher, suite, kit."""
    family: str
    models: Mapping[int, EvaluatedModel]

    @property
    def student(self) -> str:
        """The student's label."""
        return self.labels[0]

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{' '.join(self.labels)} {self.family[:8]}"

    def is_called(self, name: str) -> bool:
        """Whether each word of a name is one of its labels or begins its fingerprint."""
        labels = [label.casefold() for label in self.labels]
        return all(
            word in labels or (len(word) >= _SHORTEST and self.family.startswith(word))
            for word in name.casefold().split()
        )


@dataclass(frozen=True)
class OverSeeds:
    """One benchmark, or the mean, over the seeds that both recipes have; in points.

    Attributes:
        benchmark: its name, or `AVERAGE`.
        seeds: those with a score on both sides.
        first: the first recipe's mean over them.
        second: the second's.
        differences: the second's score minus the first's, one for each seed.
        interval: of their mean, 95 % by Student's t.
        p: of the paired t test.
        adjusted: the same by Holm over the comparable benchmarks; None for the others and the mean.
        detectable: the difference that this test finds in 80 of 100 cases.
        unlike: parts of the provenance in which scores differ: they are not comparable.
        over: the benchmarks of the mean; empty for a benchmark.
        incomplete: too few questions of a score have a verdict.
    """

    benchmark: str
    seeds: tuple[int, ...]
    first: float
    second: float
    differences: tuple[float, ...]
    interval: Interval
    p: float
    detectable: float
    adjusted: float | None = None
    unlike: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    incomplete: bool = False

    @property
    def verdict(self) -> str:
        """The second is "better", "worse" or "not decided"; or why it cannot be judged."""
        if self.unlike or self.incomplete:
            return "not comparable" if self.unlike else "incomplete"
        if len(self.seeds) < FEWEST_SEEDS:
            return "too few seeds"
        if (self.p if self.adjusted is None else self.adjusted) >= LEVEL:
            return "not decided"
        return "better" if self.interval.mean > 0 else "worse"


@dataclass(frozen=True)
class RecipeComparison:
    """Two recipes, seed by seed.

    Attributes:
        first, second: the recipes.
        benchmarks: the paper's in its order, then the others, then the mean.
        notes: what could not be paired, or is not alike.
        settings: those that differ; None where the ledger lacks a run.
    """

    first: Recipe
    second: Recipe
    benchmarks: list[OverSeeds]
    notes: tuple[str, ...]
    settings: SettingDifferences | None


def find_recipes(ledger: Ledger, first: str, second: str) -> tuple[Recipe, Recipe] | None:
    """Return the recipes that two names mean, such as "ril both"; None if both are evaluations.

    Raises:
        UserError: a name is no evaluation and no recipe, or means several.
    """
    try:
        find_evaluation(ledger, first)
        find_evaluation(ledger, second)
    except UserError as error:
        recipes = _recipes(ledger.evaluations())
        candidates = [[r for r in recipes if r.is_called(name)] for name in (first, second)]
        if not all(candidates):
            known = ", ".join(sorted({" ".join(r.labels[1:3]) for r in recipes})) or "none yet"
            raise UserError(f"{error}; recipes with seeds: {known}") from error
    else:
        return None
    couples = [
        (a, b)
        for a in candidates[0]
        for b in candidates[1]
        if a.labels[3:] == b.labels[3:] and a is not b
    ]
    # Two students differ in more than the recipe: only if there is no other choice. A student may
    # have the name of a suite, which all recipes on it have among their labels.
    couples = [(a, b) for a, b in couples if a.student == b.student] or couples
    words = f"{first} {second}".casefold().split()
    couples = [(a, b) for a, b in couples if a.student.casefold() in words] or couples
    if len(couples) != 1:
        names = "; ".join(dict.fromkeys(r.name for several in candidates for r in several))
        which = "name several recipes" if couples else "name no two recipes of one suite and kit"
        raise UserError(f"{first!r} and {second!r} {which}: {names}; add words of these")
    return couples[0]


def _recipes(evaluations: Iterable[Evaluation]) -> list[Recipe]:
    groups: dict[tuple[str, ...], list[EvaluatedModel]] = {}
    for model in evaluated_models(evaluations):
        e = model.newest
        if e.family is not None:
            key = (e.student, e.method, e.teacher, e.suite, e.kit, e.family)
            groups.setdefault(key, []).append(model)
    return [
        Recipe(
            key[:-1],
            key[-1],
            {m.newest.seed: m for m in one_per_seed(group) if m.newest.seed is not None},
        )
        for key, group in groups.items()
    ]


def compare_recipes(
    ledger: Ledger, first: Recipe, second: Recipe, benchmarks: Sequence[str] = ()
) -> RecipeComparison:
    """Compare two recipes by the seeds that both have.

    Args:
        ledger: holds both; its runs tell the recipes' settings.
        first: a recipe.
        second: another.
        benchmarks: only these; all that both have if empty.

    Raises:
        UserError: they share no seed or no benchmark, or a benchmark is not known.
    """
    seeds = sorted(first.models.keys() & second.models.keys())
    if not seeds:
        have = [", ".join(map(str, sorted(r.models))) or "none" for r in (first, second)]
        raise UserError(
            f"{first.name} (seeds {have[0]}) and {second.name} (seeds {have[1]}) share no seed; "
            "compare two evaluations by their numbers"
        )
    pairs = {seed: (first.models[seed], second.models[seed]) for seed in seeds}
    known = in_order(
        name for a, b in pairs.values() for name in a.origins.keys() & b.origins.keys()
    )
    found = [_one(name, pairs) for name in choose_benchmarks(benchmarks, known) or known]
    compared = [one for one in found if one is not None]
    if not compared:
        raise UserError(f"{first.name} and {second.name} share no scored benchmark")
    alike = [one for one in compared if not one.unlike and not one.incomplete]
    adjusted = dict(zip([o.benchmark for o in alike], holm([o.p for o in alike]), strict=True))
    compared = [replace(one, adjusted=adjusted.get(one.benchmark)) for one in compared]
    paper = [one for one in alike if one.benchmark in PAPER_14 and len(one.seeds) == len(seeds)]
    if len(paper) > 1:
        compared.append(_mean(paper))
    newest = [recipe.models[seeds[0]].newest for recipe in (first, second)]
    settings = differing_settings(ledger.runs(), newest[0], newest[1])
    return RecipeComparison(first, second, compared, tuple(_notes(first, second, pairs)), settings)


_Pairs = Mapping[int, tuple[EvaluatedModel, EvaluatedModel]]


def _one(benchmark: str, pairs: _Pairs) -> OverSeeds | None:
    """Return a benchmark's comparison; None where no seed has a score on both sides."""
    origins: dict[int, tuple[Origin, Origin]] = {}
    for seed, (a, b) in pairs.items():
        if benchmark in a.origins and benchmark in b.origins:
            both = a.origins[benchmark], b.origins[benchmark]
            if all(origin.score.value is not None for origin in both):
                origins[seed] = both
    if not origins:
        return None
    parts = [within_column(origin) for both in origins.values() for origin in both]
    unlike = tuple(part for part in parts[0] if len({each[part] for each in parts}) > 1)
    values = [(a.score.value or 0.0, b.score.value or 0.0) for a, b in origins.values()]
    found = _over_seeds(benchmark, tuple(origins), values)
    incomplete = any(o.score.is_incomplete for both in origins.values() for o in both)
    return replace(found, unlike=unlike, incomplete=incomplete)


def _over_seeds(
    benchmark: str, seeds: tuple[int, ...], values: Sequence[tuple[float, float]]
) -> OverSeeds:
    # Rounded: equal differences must not differ in the last bits, which would be a spread.
    differences = tuple(round(b - a, 9) for a, b in values)
    return OverSeeds(
        benchmark=benchmark,
        seeds=seeds,
        first=statistics.fmean(a for a, _ in values),
        second=statistics.fmean(b for _, b in values),
        differences=differences,
        interval=seed_interval(differences),
        p=seed_p_value(differences),
        detectable=detectable_difference(differences),
    )


def _mean(paper: Sequence[OverSeeds]) -> OverSeeds:
    """Return the comparison of the plain mean over benchmarks that have the same seeds."""
    differences = [
        statistics.fmean(each) for each in zip(*(o.differences for o in paper), strict=True)
    ]
    first = statistics.fmean(one.first for one in paper)
    found = _over_seeds(AVERAGE, paper[0].seeds, [(0.0, change) for change in differences])
    over = tuple(one.benchmark for one in paper)
    return replace(found, first=first, second=first + found.second, over=over)


def _notes(first: Recipe, second: Recipe, pairs: _Pairs) -> Iterable[str]:
    for one, other in ((first, second), (second, first)):
        if alone := sorted(one.models.keys() - other.models.keys()):
            numbers = ", ".join(map(str, alone))
            yield f"not paired: seed {numbers} of {one.name}, which {other.name} lacks"
    starts = [(a.newest.start_fingerprint, b.newest.start_fingerprint) for a, b in pairs.values()]
    if any(a != b for a, b in starts):
        yield "the two recipes began with different models"
