"""The questions of a suite as the kit puts them, cached by data and kit."""

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.base import prompts_job
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.suite import VLMEVALKIT, Dataset
from rilbench.serving import Message, image_part, text_part

_MARK = re.compile(r"<[^<>]*>")
"""A picture's place."""

Key = tuple[str, str]
"""Dataset and question id."""


@dataclass(frozen=True)
class Question:
    """One request to the model. ``group`` is the question that the kit scores: all rotations of a
    circular question share it.
    """

    dataset: str
    question_id: str
    group: str
    truth: str
    category: str | None
    parts: tuple[dict[str, str], ...]
    problem: str | None = None
    """Why it cannot be asked, such as a picture that cannot be read; then it has no parts."""
    max_tokens: int | None = None
    """The longest answer that the kit allows; None where it leaves that to the suite."""
    question: str = ""
    """As it stands in the data."""

    @property
    def key(self) -> Key:
        """What identifies it within a suite."""
        return self.dataset, self.question_id

    @property
    def stem(self) -> str:
        """What it asks, alike in both kits: the first line without hint, marks and options."""
        asked = _MARK.sub(" ", self.question.rpartition("Question:")[2]).strip()
        return " ".join(asked.partition("\n")[0].split())

    @property
    def text(self) -> str:
        """The text that the model is shown, without its images."""
        return "\n".join(part["text"] for part in self.parts if part["type"] == "text")


class PromptSet:
    """A suite's questions, made by the kit once for each state of data, kit and limit.

    Args:
        datasets: of one suite, as the kit has them.
        data: folder with the kit's data files; only read.
        cache: folder for the questions and images.
        environment: name of the kit's environment, which stands for its versions.
        limit: questions per dataset; None for all.
        kit: the kit's name.
        style: of the kit's prompts for a family of models; None for those of the datasets.

    Raises:
        UserError: a data file is missing, or the limit is not positive.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        data: Path,
        cache: Path,
        environment: str,
        limit: int | None,
        kit: str = VLMEVALKIT,
        style: str | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise UserError(f"a limit of {limit} leaves no question; give 1 or more")
        self.datasets = tuple(datasets)
        self.limit, self.style = limit, style
        self.kit = find_kit(kit)
        self._data = data.absolute()
        self._files = self.kit.files(datasets, self._data)
        self._hashes = {name: [_hash(file) for file in own] for name, own in self._files.items()}
        specs = {dataset.name: self.kit.spec(dataset) for dataset in datasets}
        sources = [_hash(file) for file in self.kit.sources]
        self.name = _name([environment, sources, limit, style, [*specs.values()], self._hashes])
        self.stories = {
            name: _name([environment, sources, style, specs[name], own or self.name])
            for name, own in self._hashes.items()
        }
        """What decides a dataset's prompts, whatever else is asked and how many of them; of what
        the kit has from the hub nothing is known before it is there."""
        self.folder = cache.absolute() / self.name
        self._building: Path | None = None

    @property
    def ready(self) -> bool:
        """The questions are there."""
        return self.folder.is_dir()

    def submit(self, kit: KitProcess) -> None:
        """Ask the kit for the questions and return at once; `finish` waits for them."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._building = Path(tempfile.mkdtemp(prefix="building-", dir=self.folder.parent))
        self.kit.prepare(self._building, [file for own in self._files.values() for file in own])
        kit.submit("prompts", self.job(self._building))

    def job(self, folder: Path | None = None) -> dict[str, Any]:
        """The job that makes the questions, in their own folder unless another is given."""
        where = folder or self.folder
        return prompts_job(self.kit, self.datasets, where, self._data, self.limit, self.style)

    def finish(self, kit: KitProcess) -> None:
        """Wait for what `submit` began; without one, do nothing."""
        if self._building is None:
            return
        try:
            kit.wait()
            if not self.ready:  # Another evaluation may have been quicker.
                self._building.rename(self.folder)
        finally:
            shutil.rmtree(self._building, ignore_errors=True)
            self._building = None

    @cached_property
    def questions(self) -> list[Question]:
        """All questions, in the kit's order."""
        with (self.folder / "questions.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        return [Question(**{**row, "parts": tuple(row["parts"])}) for row in rows]

    @cached_property
    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of each dataset's file, or of its files' hashes.

        Where the kit had it from the hub: of its questions with their truths and pictures.
        """
        hashes = {name: own[0] for name, own in self._hashes.items() if len(own) == 1}
        for name, own in self._hashes.items():
            if len(own) > 1:
                hashes[name] = hashlib.sha256(" ".join(own).encode()).hexdigest()
            elif not own:
                hashes[name] = self._content_hash(name)
        return hashes

    def _content_hash(self, name: str) -> str:
        digest = hashlib.sha256()
        for question in self.questions:
            if question.dataset == name:
                line = json.dumps(dataclasses.asdict(question), ensure_ascii=False)
                pictures = [part["path"] for part in question.parts if part["type"] == "image"]
                marks = [_hash(self.folder / picture) for picture in pictures]
                digest.update(" ".join([line, *marks]).encode())
        return digest.hexdigest()

    @cached_property
    def prompt_hashes(self) -> dict[str, str]:
        """SHA-256 of each dataset's question ids and prompts, parts in their order."""
        hashes = {d.name: hashlib.sha256() for d in self.datasets}
        for question in self.questions:
            line = json.dumps([question.question_id, question.parts], ensure_ascii=False)
            hashes[question.dataset].update(line.encode())
        return {dataset: found.hexdigest() for dataset, found in hashes.items()}

    def messages(self, question: Question, pixels: Pixels = AS_IS) -> list[Message]:
        """The request for one question, its images read from the cache and fit into limits."""
        parts: list[dict[str, Any]] = [
            image_part(pixels.fit(self.folder / part["path"]))
            if part["type"] == "image"
            else text_part(part["text"])
            for part in question.parts
        ]
        return [{"role": "user", "content": parts}]


def _name(story: object) -> str:
    return hashlib.sha256(json.dumps(story).encode()).hexdigest()[:12]


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
