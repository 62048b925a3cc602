"""A run file: a whole experiment, from the data to the table, in one YAML file.

``recipe``, ``student``, ``method`` and ``hardware`` are names, as the options of ``rilbench
train``; ``settings`` are groups of settings that win over theirs; ``eval`` has options of
``rilbench eval``; ``run`` names the run's folder; ``data`` names recipes of training sets, for
``data.train``, ``data.dev`` or both (one recipe for both: dev is what it holds out), which
``rilbench data build`` makes. The command line wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.config.load import load_recipe, load_yaml, parse_override
from rilbench.config.schema import Recipe
from rilbench.errors import UserError

_NAMES = ("recipe", "student", "method", "hardware", "run")
_GROUPS = ("settings", "eval", "data")
_SPLITS = ("train", "dev")


@dataclass(frozen=True)
class RunFile:
    """What a run file and the command line ask for."""

    recipe: Recipe
    run: str
    """Name of the run's folder."""
    evaluation: Mapping[str, Any]
    """Options of ``rilbench eval``, as they are written."""
    data: Mapping[Path, str]
    """Recipe of each file of questions that is built."""


def read_run_file(
    name: str, names: Mapping[str, str | None], overrides: Iterable[str] = ()
) -> RunFile:
    """Read a run file.

    Args:
        name: of ``known("runs")``, or a YAML file.
        names: ``recipe``, ``student``, ``method``, ``hardware`` and ``run`` of the command line.
        overrides: settings as ``key=value``, those of the evaluation as ``eval.key=value``.

    Raises:
        UserError: there is no such file, it has an unknown key, or as `load_recipe`.
    """
    written = load_yaml("runs", name)
    for key, value in written.items():
        if key not in _NAMES + _GROUPS:
            raise UserError(
                f"{name}: there is no {key!r} in a run file, only "
                f"{', '.join(_NAMES + _GROUPS)}; settings belong under settings:"
            )
        if isinstance(value, dict) != (key in _GROUPS) and value is not None:
            kind = "a group, such as" if key in _GROUPS else "a name, such as"
            examples = {"settings": "{seed: 1}", "eval": "{suite: nano}"}
            example = {**examples, "data": "{train: open-40k}"}.get(key, "nano")
            raise UserError(f"{name}: {key} is {kind} {key}: {example}")
    chosen = {key: names.get(key) or written.get(key) for key in _NAMES}
    built = {str(split): str(recipe) for split, recipe in (written.get("data") or {}).items()}
    if unknown := sorted(built.keys() - set(_SPLITS)):
        raise UserError(f"{name}: there is no data.{unknown[0]} to build, only train and dev")
    files = {
        split: Path("data") / f"{Path(recipe).stem}.parquet" for split, recipe in built.items()
    }
    if len(set(built.values())) < len(built):  # what the recipe holds out
        files["dev"] = files["train"].with_suffix(".dev.parquet")
    groups = dict(written.get("settings") or {})
    if files:
        paths = {split: str(path) for split, path in files.items()}
        groups["data"] = {**(groups.get("data") or {}), **paths}
    evaluation, settings = dict(written.get("eval") or {}), []
    for override in overrides:
        key, value = parse_override(override)
        if key.startswith("eval."):
            evaluation[key.removeprefix("eval.")] = value
        else:
            settings.append(override)
    recipe = load_recipe(
        str(chosen["recipe"] or Recipe().recipe),
        chosen["student"],
        chosen["method"],
        settings,
        chosen["hardware"],
        groups,
    )
    run = names.get("run") or (None if any(names.values()) else written.get("run"))
    used = f"{recipe.data.train} {recipe.data.dev}"  # --set may name other files
    return RunFile(
        recipe,
        run or f"{recipe.student.name}-{recipe.recipe}-{recipe.method}",
        evaluation,
        {path: built[split] for split, path in files.items() if str(path) in used},
    )
