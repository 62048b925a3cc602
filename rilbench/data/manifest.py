"""Which built training sets a run uses: the manifests that ``rilbench data build`` wrote for them.

A manifest says where every question of its file is from. Its digest belongs to the recipe of a run
(``data.manifests``), so to its fingerprint; the run's folder keeps the manifest itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from rilbench.config import Recipe
from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.paths import locate_files

FILE = "manifests.json"
"""File of a run's folder with the manifests of its questions."""

SETTINGS = {"train": "data.train", "dev": "data.dev", "sft": "sft.data"}
"""The settings that name questions, by the names that ``data.manifests`` has for them."""


def manifest_of(questions: Path) -> Path:
    """Where the manifest of a file of questions is, if it was built."""
    return questions.with_suffix(".manifest.json")


def dev_of(questions: Path) -> Path:
    """Where the questions for ``data.dev`` are that the recipe of a training set holds out."""
    return questions.with_suffix(".dev.parquet")


def whole_of(questions: Path) -> Path:
    """The training set that is built together with a file: itself, or for its `dev_of`."""
    return questions.with_name(questions.name.replace(".dev.parquet", ".parquet"))


def digest_of(questions: Iterable[Question]) -> str:
    """64 hex digits over questions in their order, with pictures and gold answers."""
    digest = hashlib.sha256()
    for question in questions:
        text = f"{question.id}\x1f{question.sha256}\x1f{question.answer}\x1e"
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The manifest of one file of questions."""

    file: Path
    """The questions."""
    values: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """16 hex digits over the manifest's content."""
        text = json.dumps(self.values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def sources(self) -> dict[str, str]:
        """Each source in words: its data set, its commit, and how many questions are from it."""
        settings = self.values["recipe"]["sources"]
        return {
            name: f"{settings[name]['hub'] or 'own files'}@{source['revision'][:12]}, "
            f"{source['questions']} questions"
            for name, source in self.values["sources"].items()
        }

    def check(self, questions: Sequence[Question]) -> None:
        """Refuse questions that are not those of the manifest.

        Raises:
            UserError: with the remedy.
        """
        if digest_of(questions) != self.values["questions_sha256"]:
            raise UserError(
                f"{self.file} is not what {manifest_of(self.file).name} beside it says: its "
                "questions were changed after it was built; build it again, or move the manifest "
                "away"
            )


def manifest_beside(questions: Path) -> Manifest | None:
    """The manifest of a file of questions; None if it was not built.

    Raises:
        UserError: it cannot be read.
    """
    path = manifest_of(questions)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["questions_sha256"], values["recipe"]["sources"], values["sources"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is not a manifest of rilbench data build ({error!r}); build the questions "
            "again, or move it away"
        ) from error
    return Manifest(questions, values)


def find_manifests(recipe: Recipe) -> dict[str, list[Manifest]]:
    """The manifests of a run's questions, by `SETTINGS`; files that are not here have none.

    Raises:
        UserError: one cannot be read.
    """
    found: dict[str, list[Manifest]] = {}
    for name, setting in SETTINGS.items():
        files: list[Path] = []
        with suppress(UserError):  # said when they are read
            files = locate_files(attrgetter(setting)(recipe))
        if manifests := [each for file in files if (each := manifest_beside(file))]:
            found[name] = manifests
    return found


def with_manifests(recipe: Recipe) -> Recipe:
    """Return the recipe with the digests of the manifests of its questions.

    Raises:
        UserError: it has the digest of another; or a manifest cannot be read.
    """
    digests = {
        name: "+".join(manifest.digest for manifest in manifests)
        for name, manifests in find_manifests(recipe).items()
    }
    for name, digest in recipe.data.manifests.items():
        if digests.get(name) != digest:
            raise UserError(
                f"data.manifests.{name}={digest}, and the manifest beside the {SETTINGS[name]} "
                f"that is here is {digests.get(name, 'none')}; give the questions that the recipe "
                "is for, or leave data.manifests out"
            )
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, manifests=digests))


def keep_manifests(folder: Path, manifests: Mapping[str, Sequence[Manifest]]) -> None:
    """Keep the manifests in a run's folder, with the digests that its recipe has."""
    if manifests:
        values = {
            key: [
                {"file": str(each.file), "digest": each.digest, "manifest": each.values}
                for each in some
            ]
            for key, some in manifests.items()
        }
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")


def kept_manifests(folder: Path) -> dict[str, list[Manifest]]:
    """The manifests that `keep_manifests` kept, by `SETTINGS`; empty without one."""
    path = folder / FILE
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {
        key: [Manifest(Path(each["file"]), each["manifest"]) for each in some]
        for key, some in kept.items()
    }
