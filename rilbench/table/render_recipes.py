"""What `rilbench compare` says about two recipes: as text for a terminal, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from rilbench.printable import printable, printable_json
from rilbench.table.formatting import grid
from rilbench.table.recipe_comparison import OverSeeds, Recipe, RecipeComparison
from rilbench.table.recipe_diff import SettingDifferences
from rilbench.table.rounding import number, signed
from rilbench.table.types import AVERAGE


def show(comparison: RecipeComparison) -> Iterator[Table | Text]:
    """Yield the parts to print."""
    for side, recipe in (("first", comparison.first), ("second", comparison.second)):
        ids = ", ".join(f"{seed} #{m.newest.id}" for seed, m in sorted(recipe.models.items()))
        yield Text(printable(f"{side}: {recipe.name}, seed and evaluation {ids}"))
    yield Text()
    yield _benchmarks_table(comparison.benchmarks)
    for one in comparison.benchmarks:
        if one.unlike:
            text = f"not comparable: {one.benchmark} differs in {' and '.join(one.unlike)}"
            yield Text(printable(text), style="yellow")
    for note in comparison.notes:
        yield Text(printable(note), style="yellow")
    over = comparison.benchmarks[-1].over
    if over:
        yield Text(printable(f"mean: over {', '.join(over)}"), style="dim")
    yield Text(
        "change: of the same seed, mean with Student's interval. p: paired t test, by Holm over "
        "the benchmarks. detectable: the change that this test finds in 80 of 100 cases.",
        style="dim",
    )
    yield from settings_table(comparison.settings)


def _benchmarks_table(benchmarks: list[OverSeeds]) -> Table:
    numbers = ("seeds", "first", "second", "change", "95 %", "p", "detectable")
    table = grid("benchmark", *numbers, "the second is", right=numbers)
    for column in table.columns:
        column.no_wrap = True
    for one in benchmarks:
        p = one.p if one.adjusted is None else one.adjusted
        ends = one.interval
        table.add_row(
            Text("mean" if one.benchmark == AVERAGE else printable(one.benchmark)),
            str(len(one.seeds)),
            number(one.first),
            number(one.second),
            signed(ends.mean),
            f"{signed(ends.low)} to {signed(ends.high)}" if math.isfinite(ends.low) else "-",
            "-" if one.unlike or one.incomplete else "<0.001" if p < 0.001 else f"{p:.3f}",
            number(one.detectable) if math.isfinite(one.detectable) else "-",
            one.verdict,
        )
    return table


def settings_table(settings: SettingDifferences | None) -> Iterator[Table | Text]:
    """Yield the settings in which two recipes differ; nothing if the recipes are not known."""
    if settings is None:
        return
    yield Text()
    if not settings:
        yield Text("the recipes differ in nothing but the seed")
        return
    yield Text("settings that differ", style="bold")
    table = grid("setting", "first", "second")
    for name, values in settings.items():
        texts = [
            "-" if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in values
        ]
        table.add_row(*[Text(printable(text)) for text in (name, *texts)])
    yield table


def as_json(comparison: RecipeComparison) -> str:
    """Return everything as JSON; what is infinite with one seed is null."""
    record: dict[str, Any] = {
        "first": _recipe(comparison.first),
        "second": _recipe(comparison.second),
        "benchmarks": [
            {**_finite(dataclasses.asdict(one)), "verdict": one.verdict}
            for one in comparison.benchmarks
        ],
        "notes": comparison.notes,
        "settings": comparison.settings,
    }
    return printable_json(record)


def _recipe(recipe: Recipe) -> dict[str, Any]:
    names = ("student", "method", "teacher", "suite", "kit")
    evaluations = {seed: model.newest.id for seed, model in recipe.models.items()}
    labels = dict(zip(names, recipe.labels, strict=True))
    return {**labels, "family": recipe.family, "evaluations": evaluations}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for infinite ones, which JSON lacks."""
    return {
        name: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }
