"""Find training questions that overlap with the benchmarks: by image, by words, or by both.

ChartQA and AI2D are among the paper's training sources and among its benchmarks. The benchmarks'
texts and hashes stay in memory, their images do not; of the training questions only a few are in
memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rilbench.data.contamination.benchmark_questions import BenchmarkRow, read_benchmark
from rilbench.data.contamination.image_hash import ImageHash, ImageIndex, hash_image
from rilbench.data.contamination.ngram_match import NEAR, SAME, TextIndex
from rilbench.data.question import Question
from rilbench.data.question_files import QuestionWriter
from rilbench.errors import InvalidQuestionError, UserError
from rilbench.evaluate.suite import Suite

BY = ("image", "question", "both", "any")
"""The overlap for which a question is dropped: an image; words; both with one benchmark question;
or either.
"""

_BLOCK = 64
"""Questions that are compared at a time."""
_SHOWN = 3
"""Hits of one question in one benchmark that the report lists."""


@dataclass(frozen=True)
class Hit:
    """A benchmark question that a training question overlaps with."""

    benchmark: str
    dataset: str
    index: str
    image: str = ""
    """`SAME`, `NEAR` or empty."""
    question: str = ""
    """`SAME`, `NEAR` or empty."""

    def counts(self, by: str) -> bool:
        """Whether it is an overlap by one of `BY`."""
        return {
            "image": bool(self.image),
            "question": bool(self.question),
            "both": bool(self.image and self.question),
            "any": True,
        }[by]


@dataclass
class Tally:
    """Counts for one benchmark."""

    asked: int = 0
    """Questions of the benchmark."""
    pictures: int = 0
    """Images of the benchmark."""
    unreadable: int = 0
    """Rows of the benchmark without a readable image."""
    missing: list[str] = field(default_factory=list)
    """Files of the benchmark that do not exist and were not compared."""
    same_image: int = 0
    """Training questions with an image of the benchmark."""
    near_image: int = 0
    """Training questions with a near image only."""
    same_question: int = 0
    near_question: int = 0
    both: int = 0
    """Training questions with image and words of one benchmark question."""
    met: int = 0
    """Questions of the benchmark whose image is in a training question."""


class BenchmarkIndex:
    """The questions of a suite, to compare training questions with.

    Args:
        suite: the suite, with VLMEvalKit's files.
        folder: the folder with the files.
        on_file: called with the name of each file before it is read.

    Raises:
        UserError: none of the files exists, or one cannot be read.
    """

    def __init__(self, suite: Suite, folder: Path, on_file: Callable[[str], None]) -> None:
        self.texts, self.images = TextIndex(), ImageIndex()
        self.tallies = {benchmark.column: Tally() for benchmark in suite.benchmarks}
        self._questions: dict[tuple[str, str, str], int] = {}
        """Number of each benchmark question (benchmark, dataset, index)."""
        self._by_text: dict[int, set[int]] = {}
        """Questions with a text, by its number in ``texts``."""
        self._by_image: dict[int, set[int]] = {}
        """Questions with an image, by its number in ``images``."""
        for benchmark in suite.benchmarks:
            tally = self.tallies[benchmark.column]
            for dataset in benchmark.datasets:
                path = folder / f"{dataset.name}.tsv"
                if not path.is_file():
                    tally.missing.append(path.name)
                    continue
                on_file(path.name)
                self._add(benchmark.column, dataset.name, read_benchmark(path, dataset))
        if not self._questions:
            raise UserError(
                f"{folder} has none of the benchmarks' files; give their folder with --data, or "
                "get them with rilbench data download"
            )
        self._keys = list(self._questions)
        self.texts.finish()
        self.images.finish()

    def _add(self, benchmark: str, dataset: str, rows: Iterable[BenchmarkRow]) -> None:
        tally = self.tallies[benchmark]
        images_of: dict[str, set[int]] = {}
        borrowers: list[tuple[int, str]] = []
        for row in rows:
            key = (benchmark, dataset, row.index)
            if key not in self._questions:
                self._questions[key] = len(self._questions)
                tally.asked += 1
            number = self._questions[key]
            text = self.texts.add(row.question)
            if text is not None:
                self._by_text.setdefault(text, set()).add(number)
            try:
                images = {self.images.add(image) for image in row.images}
            except InvalidQuestionError:
                images = set()
            tally.unreadable += row.unreadable or (bool(row.images) and not images)
            images_of.setdefault(row.index, set()).update(images)
            for image in images:
                self._by_image.setdefault(image, set()).add(number)
            if row.same_images_as is not None:
                borrowers.append((number, row.same_images_as))
        for number, index in borrowers:
            for image in images_of.get(index, ()):
                self._by_image.setdefault(image, set()).add(number)
        tally.pictures += len(set().union(*images_of.values()))

    def compare(self, questions: Iterable[Question]) -> Iterator[tuple[Question, list[Hit]]]:
        """Yield each question with its hits, and count them in ``tallies``."""
        met: set[int] = set()
        stream = iter(questions)
        while block := list(islice(stream, _BLOCK)):
            hashes = [_hash_images(question) for question in block]
            matches = iter(self.images.match([image for group in hashes for image in group]))
            for question, group in zip(block, hashes, strict=True):
                images: dict[int, str] = {}
                for _ in group:
                    for image, kind in next(matches).items():
                        for number in self._by_image.get(image, ()):
                            images[number] = SAME if SAME in (kind, images.get(number)) else NEAR
                texts = {
                    number: kind
                    for text, kind in self.texts.match(question.question).items()
                    for number in self._by_text[text]
                }
                met |= images.keys()
                hits = [
                    Hit(*self._keys[number], images.get(number, ""), texts.get(number, ""))
                    for number in sorted(images.keys() | texts.keys())
                ]
                self._count(hits)
                yield question, hits
        for number in met:
            benchmark, _, _ = self._keys[number]
            self.tallies[benchmark].met += 1

    def _count(self, hits: list[Hit]) -> None:
        for benchmark in {hit.benchmark for hit in hits}:
            tally = self.tallies[benchmark]
            here = [hit for hit in hits if hit.benchmark == benchmark]
            images, questions = {hit.image for hit in here}, {hit.question for hit in here}
            tally.same_image += SAME in images
            tally.near_image += NEAR in images and SAME not in images
            tally.same_question += SAME in questions
            tally.near_question += NEAR in questions and SAME not in questions
            tally.both += any(hit.counts("both") for hit in here)


def _hash_images(question: Question) -> list[ImageHash]:
    """The hashes of the readable images; a broken one overlaps with nothing."""
    hashes = []
    for image in question.images:
        try:
            hashes.append(hash_image(image))
        except InvalidQuestionError:  # noqa: PERF203
            continue
    return hashes


@dataclass(frozen=True)
class Overlap:
    """The result of `find_overlap`."""

    questions: int
    """Training questions."""
    overlapping: int
    """Those with a hit of any kind."""
    dropped: int
    """Those with a hit of the chosen kind."""
    tallies: dict[str, Tally]
    """By benchmark."""
    rows: list[dict[str, Any]]
    """The hits of each overlapping question, for the report."""


def find_overlap(
    questions: Iterable[Question],
    index: BenchmarkIndex,
    by: str,
    kept: Path | None,
    on_question: Callable[[int], None],
) -> Overlap:
    """Compare all questions with the benchmarks; optionally write those without overlap.

    Args:
        questions: the training questions; read once.
        index: the benchmarks.
        by: one of `BY`, the overlap for which a question is dropped.
        kept: the file for the other questions; None for none.
        on_question: called with the number of questions so far.

    Raises:
        UserError: the questions cannot be read, or none would be left.
    """
    total = dropped = 0
    rows: list[dict[str, Any]] = []
    with nullcontext() if kept is None else QuestionWriter(kept) as writer:
        for question, hits in index.compare(questions):
            total += 1
            on_question(total)
            drop = any(hit.counts(by) for hit in hits)
            dropped += drop
            if hits:
                rows.append(_report_row(question, hits))
            if writer is not None and not drop:
                writer.write(question)
        if writer is not None and dropped == total:
            raise UserError(
                f"every question overlaps with a benchmark by {by}; give another --by (in a "
                "recipe: overlap), or other questions"
            )
    return Overlap(total, len(rows), dropped, index.tallies, rows)


def _report_row(question: Question, hits: list[Hit]) -> dict[str, Any]:
    """A question's first few hits in each benchmark, the closest first."""
    shown: dict[str, list[dict[str, str]]] = {}
    for hit in sorted(hits, key=lambda hit: (not hit.counts("both"), not hit.image)):
        in_benchmark = shown.setdefault(hit.benchmark, [])
        if len(in_benchmark) < _SHOWN:
            kinds = {"image": hit.image, "question": hit.question}
            in_benchmark.append({"dataset": hit.dataset, "index": hit.index, **kinds})
    return {"id": question.id, "source": question.source, "hits": len(hits), "in": shown}
