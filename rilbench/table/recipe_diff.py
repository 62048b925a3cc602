"""The settings in which two training runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from rilbench.ledger import Evaluation, Run

SettingDifferences = dict[str, tuple[Any, Any]]
"""By setting, the value of the first and the second; None for one that a recipe lacks."""


def read_yaml(text: str) -> dict[str, Any]:
    """Read a recipe as the ledger keeps it; empty if it cannot be read."""
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def differing_settings(
    runs: Sequence[Run], first: Evaluation, second: Evaluation
) -> SettingDifferences | None:
    """Return how the recipes of two evaluated models differ, but for the seed.

    None if the ledger has no run of one of them, or its recipe cannot be read.
    """
    recipes = []
    for evaluation in (first, second):
        texts = (
            run.recipe_yaml
            for run in runs
            if evaluation.recipe_fingerprint
            and run.recipe_fingerprint == evaluation.recipe_fingerprint
        )
        recipe = dict(_flat(read_yaml(next(texts, ""))))
        if not recipe:
            return None
        recipes.append(recipe)
    one, two = recipes
    names = dict.fromkeys((*one, *two))
    return {
        name: (one.get(name), two.get(name))
        for name in names
        if one.get(name) != two.get(name) and name != "seed"
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
