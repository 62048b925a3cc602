"""A suite's questions as the kit asks them, cached by data, kit and limit."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.data import joint_hash
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.kits import find_kit
from rilbench.evaluate.kits.base import prompts_job
from rilbench.evaluate.kits.trial import Trial, read_trial
from rilbench.evaluate.kits.worker_process import KitProcess
from rilbench.evaluate.new_folder import NewFolder, is_whole
from rilbench.evaluate.suite import VLMEVALKIT, Dataset
from rilbench.serving import Message, image_part, text_part

_IMAGE_MARK = re.compile(r"<[^<>]*>")

Key = tuple[str, str]
"""Data set and question id."""


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One request to the model. A circular question is one request for each of its rotations."""

    dataset: str
    question_id: str
    group: str
    """The question that the kit scores: all rotations of a circular question share it."""
    truth: str
    category: str | None
    parts: tuple[dict[str, str], ...]
    """Of the message, in order: {"type": "text", "text"} or {"type": "image", "path"}."""
    problem: str | None = None
    """Why it cannot be asked, such as an unreadable image; it then has no parts."""
    max_tokens: int | None = None
    """The longest response that the kit allows; None where it leaves that to the suite."""
    question: str = ""
    """Its text in the data file."""

    @property
    def key(self) -> Key:
        """What identifies it within a suite."""
        return self.dataset, self.question_id

    @property
    def stem(self) -> str:
        """Its first line without hint, image marks and options; the same in both kits."""
        text = _IMAGE_MARK.sub(" ", self.question.rpartition("Question:")[2]).strip()
        return " ".join(text.partition("\n")[0].split())

    @property
    def text(self) -> str:
        """The prompt's text, without its images."""
        return "\n".join(part["text"] for part in self.parts if part["type"] == "text")


class PromptSet:
    """A suite's questions, made by the kit once for each state of data, kit and limit.

    Args:
        datasets: of one suite, as the kit names them.
        data: folder with the kit's data files; only read.
        cache: folder for the questions and images.
        environment: name of the kit's environment, which identifies its versions.
        limit: questions per data set; None for all.
        kit: the kit's name.
        style: the kit's prompts for a family of models; None for each data set's own prompts.

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
            raise UserError(f"--limit must be at least 1, not {limit}")
        self.datasets = tuple(datasets)
        self.limit, self.style = limit, style
        self.kit = find_kit(kit)
        self._data = data.absolute()
        self._files = self.kit.files(datasets, self._data)
        self._hashes = {
            name: [_sha256(file) for file in files] for name, files in self._files.items()
        }
        specs = {dataset.name: self.kit.spec(dataset) for dataset in datasets}
        sources = [_sha256(file) for file in self.kit.sources]
        self.name = _short_hash(
            [environment, sources, limit, style, [*specs.values()], self._hashes]
        )
        self.fingerprints = {
            name: _short_hash([environment, sources, style, specs[name], hashes or self.name])
            for name, hashes in self._hashes.items()
        }
        """By data set: a hash of what decides its prompts, without the limit and the other data
        sets. What lmms-eval gets from the hub has no hash before it is downloaded."""
        self.folder = cache.absolute() / self.name
        self._new: NewFolder | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the questions are in the cache, with all their pictures."""
        self._ready = self._ready or is_whole(self.folder)
        return self._ready

    def submit(self, kit: KitProcess) -> None:
        """Ask the kit for the questions and return at once; `finish` waits for them."""
        self._new = NewFolder(self.folder)
        self.kit.prepare(self._new.path, [f for files in self._files.values() for f in files])
        kit.submit("prompts", self.job(self._new.path))

    def job(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the job that writes the questions, into the cache unless a folder is given."""
        where = folder or self.folder
        return prompts_job(self.kit, self.datasets, where, self._data, self.limit, self.style)

    def finish(self, kit: KitProcess) -> None:
        """Wait for the questions that `submit` asked for, if it did."""
        if self._new is None:
            return
        try:
            kit.wait()
            self._new.complete()
        finally:
            self._new.close()
            self._new = None

    @cached_property
    def questions(self) -> list[BenchmarkQuestion]:
        """All questions, in the kit's order."""
        with (self.folder / "questions.jsonl").open(encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines]
        return [BenchmarkQuestion(**{**r, "parts": tuple(r["parts"])}) for r in records]

    def trials(self) -> dict[str, Trial]:
        """What is known of the totals of data sets that the kit was tried on, by data set.

        Raises:
            UserError: a total is no score.
        """
        file = self.folder / "trials.json"
        results = json.loads(file.read_bytes()) if file.exists() else {}
        read = {
            d.name: read_trial(d, results[d.name], self.kit.total)
            for d in self.datasets
            if d.name in results
        }
        return {name: trial for name, trial in read.items() if trial is not None}

    @cached_property
    def data_hashes(self) -> dict[str, str]:
        """By data set: SHA-256 of its file, or of its files' hashes.

        Of a data set from the hub: of its questions with their truths and images.
        """
        found = {}
        for name, hashes in self._hashes.items():
            if not hashes:
                found[name] = self._content_hash(name)
            else:
                found[name] = hashes[0] if len(hashes) == 1 else joint_hash(hashes)
        return found

    def _content_hash(self, name: str) -> str:
        digest = hashlib.sha256()
        for question in self.questions:
            if question.dataset == name:
                # The category is not asked: it may be told later and changes no score.
                asked = dataclasses.asdict(dataclasses.replace(question, category=None))
                line = json.dumps(asked, ensure_ascii=False)
                images = [part["path"] for part in question.parts if part["type"] == "image"]
                hashes = [_sha256(self.folder / image) for image in images]
                digest.update(" ".join([line, *hashes]).encode())
        return digest.hexdigest()

    @cached_property
    def prompt_hashes(self) -> dict[str, str]:
        """By data set: SHA-256 of its question ids and prompts, in order."""
        hashes = {d.name: hashlib.sha256() for d in self.datasets}
        for question in self.questions:
            line = json.dumps([question.question_id, question.parts], ensure_ascii=False)
            hashes[question.dataset].update(line.encode())
        return {dataset: digest.hexdigest() for dataset, digest in hashes.items()}

    def messages(self, question: BenchmarkQuestion, pixels: Pixels = AS_IS) -> list[Message]:
        """Return the request for one question, its images scaled into the limits."""
        parts: list[dict[str, Any]] = [
            image_part(pixels.fit(self.folder / part["path"]))
            if part["type"] == "image"
            else text_part(part["text"])
            for part in question.parts
        ]
        return [{"role": "user", "content": parts}]


def _short_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
