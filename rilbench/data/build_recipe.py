"""The recipe of a training set: which data sets, how much of each, and what is left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rilbench.config.load import build_settings
from rilbench.errors import UserError
from rilbench.resources import resource

FOLDER = "recipes/data"


@dataclass(frozen=True)
class Source:
    """One data set, on the hub or in a folder."""

    hub: str = ""  # owner/name of a data set on the hub
    revision: str = "main"  # its commit, tag or branch; the manifest has the commit
    path: str = ""  # or a local file or folder, from the recipe's folder
    files: tuple[str, ...] = ("*.parquet",)  # which files of the hub's repository to download
    split: str = "train"  # of a local folder
    columns: Mapping[str, str] = field(default_factory=dict)  # as in rilbench data import --columns
    all_turns: bool = False  # every turn of a conversation is a question
    share: float = 1.0  # its part of the training set, in proportion to the others'
    max_question_words: int = 0  # longer questions are left out; 0: no limit
    max_answer_words: int = 0  # longer gold answers are left out; 0: no limit
    note: str = ""  # for readers


@dataclass(frozen=True)
class DataRecipe:
    """A training set."""

    questions: int
    dev: int = 0  # further questions for data.dev, of no picture that is in the training set
    seed: int = 0
    benchmarks: str = "paper"  # suite whose questions may not be in it; "": none is compared
    overlap: str = "image"  # what counts as overlap, as in rilbench data overlap --by
    pool: float = 1.0  # questions to choose from by log-probability, times `questions`
    easiest: float = 0.2  # as in rilbench data select; only with pool above 1
    hardest: float = 0.1
    note: str = ""
    sources: Mapping[str, Source] = field(default_factory=dict)
    folder: Path = Path()
    """Where local paths start."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that decides about the questions; notes do not."""
        values = asdict(self)
        del values["note"], values["folder"]
        for source in values["sources"].values():
            del source["note"]
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def quotas(self, total: int) -> dict[str, int]:
        """How many of ``total`` questions come from each source, by the largest remainders."""
        weight = sum(source.share for source in self.sources.values())
        exact = {name: total * source.share / weight for name, source in self.sources.items()}
        quotas = {name: int(number) for name, number in exact.items()}
        by_rest = sorted(exact, key=lambda name: quotas[name] - exact[name])
        for name in by_rest[: total - sum(quotas.values())]:
            quotas[name] += 1
        return quotas


def read_data_recipe(name: str) -> DataRecipe:
    """Read a recipe of a training set.

    Args:
        name: of a file in ``recipes/data``, or the path of a YAML file.

    Raises:
        UserError: there is none, or a setting is missing, unknown or wrong.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        shipped = {file.stem: file for file in resource(FOLDER).glob("*.yaml")}
        if name not in shipped:
            raise UserError(
                f"no recipe {name!r}; known: {', '.join(sorted(shipped))}; or a YAML file"
            )
        path = shipped[name]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its path") from error
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as YAML ({reason}); fix it") from error
    if not isinstance(values, dict) or not isinstance(values.get("sources"), dict):
        raise UserError(f"{path} names no sources; write it as recipes/data/open-40k.yaml")
    if "questions" not in values:
        raise UserError(f"{path} lacks questions, the size of the training set; add it")
    sources = {
        str(source): build_settings(Source, settings or {}, f"sources.{source}.")
        for source, settings in values.pop("sources").items()
    }
    recipe: DataRecipe = build_settings(DataRecipe, values, "")
    recipe = DataRecipe(**{**vars(recipe), "sources": sources, "folder": path.resolve().parent})
    _check(path, recipe)
    return recipe


def _check(path: Path, recipe: DataRecipe) -> None:
    """Refuse what could not be built."""

    def refuse(why: str) -> None:
        raise UserError(f"{path}: {why}")

    if recipe.questions < 1:
        refuse(f"questions={recipe.questions} must be at least 1")
    if recipe.dev < 0:
        refuse(f"dev={recipe.dev} must not be negative")
    if recipe.pool < 1:
        refuse(f"pool={recipe.pool} must be at least 1, which chooses without a student")
    for name, source in recipe.sources.items():
        if bool(source.hub) == bool(source.path):
            refuse(f"sources.{name} needs hub or path, and not both")
        if source.share <= 0:
            refuse(f"sources.{name}.share={source.share} must be above 0; or leave the source out")


def as_plain(recipe: DataRecipe) -> dict[str, Any]:
    """The recipe as plain types, without the folders of this machine."""
    values = asdict(recipe)
    del values["folder"]
    for source in values["sources"].values():
        if Path(source["path"]).is_absolute():
            source["path"] = Path(source["path"]).name
    return values
