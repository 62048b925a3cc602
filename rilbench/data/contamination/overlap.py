"""Which questions to train on the benchmarks ask, too: by picture, by words, or by both.

ChartQA and AI2D are among the paper's training sources and among its benchmarks. The benchmarks'
questions and fingerprints stay in memory, their pictures do not, and of the questions to train on a
few are there at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rilbench.data.contamination.benchmark_questions import Asked, read_benchmark
from rilbench.data.contamination.image_hash import Print, PrintIndex, print_of
from rilbench.data.contamination.ngram_match import NEAR, SAME, TextIndex
from rilbench.data.question import Question, RefusedError
from rilbench.data.question_files import QuestionWriter
from rilbench.errors import UserError
from rilbench.evaluate.suite import Suite

BY = ("image", "question", "both", "any")
"""What makes a question one that is dropped: a picture; words; both of one benchmark's question; or
either."""

_BLOCK = 64
"""Questions that are compared at a time."""
_SHOWN = 3
"""Hits of one question in one benchmark that the report names."""


@dataclass(frozen=True)
class Hit:
    """A benchmark's question that a question to train on overlaps with."""

    benchmark: str
    dataset: str
    index: str
    image: str = ""
    """`SAME`, `NEAR` or nothing."""
    question: str = ""
    """The same of the words."""

    def counts(self, by: str) -> bool:
        """Whether it is an overlap by this one of `BY`."""
        return {
            "image": bool(self.image),
            "question": bool(self.question),
            "both": bool(self.image and self.question),
            "any": True,
        }[by]


@dataclass
class Tally:
    """What was found in one benchmark."""

    asked: int = 0
    """Questions of the benchmark."""
    pictures: int = 0
    unreadable: int = 0
    """Rows of the benchmark without a picture that can be read."""
    missing: list[str] = field(default_factory=list)
    """Its files that are not there, and were not compared."""
    same_image: int = 0
    """Questions to train on with a picture of the benchmark; so the next ones."""
    near_image: int = 0
    same_question: int = 0
    near_question: int = 0
    both: int = 0
    met: int = 0
    """The benchmark's questions whose picture was found among those to train on."""


class Benchmarks:
    """A suite's questions, to compare with.

    Args:
        suite: as VLMEvalKit has it.
        folder: with its data files.
        on_file: called with the name of each file before it is read.

    Raises:
        UserError: none of the files is there, or one cannot be read.
    """

    def __init__(self, suite: Suite, folder: Path, on_file: Callable[[str], None]) -> None:
        self.texts, self.prints = TextIndex(), PrintIndex()
        self.tallies = {benchmark.column: Tally() for benchmark in suite.benchmarks}
        self._questions: dict[tuple[str, str, str], int] = {}
        self._keys: list[tuple[str, str, str]] = []
        self._by_text: dict[int, set[int]] = {}
        self._by_print: dict[int, set[int]] = {}
        for benchmark in suite.benchmarks:
            tally = self.tallies[benchmark.column]
            for dataset in benchmark.datasets:
                path = folder / f"{dataset.name}.tsv"
                if not path.is_file():
                    tally.missing.append(path.name)
                    continue
                on_file(path.name)
                self._add(benchmark.column, dataset.name, read_benchmark(path, dataset))
        if not self._keys:
            raise UserError(
                f"{folder} has none of the benchmarks' files; give their folder with --data, or "
                "get them with rilbench eval"
            )
        self.texts.finish()
        self.prints.finish()

    def _add(self, column: str, dataset: str, rows: Iterable[Asked]) -> None:
        tally = self.tallies[column]
        shown: dict[str, set[int]] = {}
        likes: list[tuple[int, str]] = []
        for row in rows:
            key = (column, dataset, row.index)
            if key not in self._questions:
                self._questions[key] = len(self._keys)
                self._keys.append(key)
                tally.asked += 1
            number = self._questions[key]
            text = self.texts.add(row.question)
            if text is not None:
                self._by_text.setdefault(text, set()).add(number)
            own = self._pictures(row, tally)
            shown.setdefault(row.index, set()).update(own)
            likes += [(number, row.like)] if row.like is not None else []
            for picture in own:
                self._by_print.setdefault(picture, set()).add(number)
        for number, index in likes:
            for picture in shown.get(index, ()):
                self._by_print.setdefault(picture, set()).add(number)
        tally.pictures += len({picture for own in shown.values() for picture in own})

    def _pictures(self, row: Asked, tally: Tally) -> set[int]:
        try:
            found = {self.prints.add(image) for image in row.images}
        except RefusedError:
            found = set()
        tally.unreadable += row.unreadable or (bool(row.images) and not found)
        return found

    def compare(self, questions: Iterable[Question]) -> Iterator[tuple[Question, list[Hit]]]:
        """Each question with what it overlaps; tallies are counted up."""
        met: set[int] = set()
        stream = iter(questions)
        while block := list(islice(stream, _BLOCK)):
            prints = [_prints(question) for question in block]
            matches = iter(self.prints.match([each for own in prints for each in own]))
            for question, own in zip(block, prints, strict=True):
                images: dict[int, str] = {}
                for picture, kind in (each for _ in own for each in next(matches).items()):
                    for number in self._by_print.get(picture, ()):
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
            self.tallies[self._keys[number][0]].met += 1

    def _count(self, hits: list[Hit]) -> None:
        for column in {hit.benchmark for hit in hits}:
            own, tally = [hit for hit in hits if hit.benchmark == column], self.tallies[column]
            tally.same_image += any(hit.image == SAME for hit in own)
            tally.near_image += all(hit.image != SAME for hit in own) and any(h.image for h in own)
            tally.same_question += any(hit.question == SAME for hit in own)
            tally.near_question += all(hit.question != SAME for hit in own) and any(
                hit.question for hit in own
            )
            tally.both += any(hit.counts("both") for hit in own)


def _prints(question: Question) -> list[Print]:
    """Of the pictures that can be read; a broken one overlaps with nothing."""
    found = []
    for image in question.images:
        try:
            found.append(print_of(image))
        except RefusedError:  # noqa: PERF203  Each picture for itself.
            continue
    return found


def told(question: Question, hits: list[Hit]) -> dict[str, Any]:
    """A question's overlaps for the report: of each benchmark the first few, the closest first."""
    found: dict[str, list[dict[str, str]]] = {}
    for hit in sorted(hits, key=lambda hit: (not hit.counts("both"), not hit.image)):
        own = found.setdefault(hit.benchmark, [])
        if len(own) < _SHOWN:
            kinds = {"image": hit.image, "question": hit.question}
            own.append({"dataset": hit.dataset, "index": hit.index, **kinds})
    return {"id": question.id, "source": question.source, "hits": len(hits), "in": found}


@dataclass(frozen=True)
class Overlap:
    """What `find_overlap` found."""

    questions: int
    overlapping: int
    """By picture, words or both."""
    dropped: int
    """Of them those that a file was written without."""
    tallies: dict[str, Tally]
    rows: list[dict[str, Any]]
    """`told` of each that overlaps."""


def find_overlap(
    questions: Iterable[Question],
    known: Benchmarks,
    by: str,
    kept: Path | None,
    on_question: Callable[[int], None],
) -> Overlap:
    """Compare all questions; with a file, write those that do not overlap.

    Args:
        questions: to train on; read once.
        known: the benchmarks.
        by: one of `BY`, what is dropped.
        kept: the file for the others; None for none.
        on_question: called with the number of questions so far.

    Raises:
        UserError: as of reading the questions; or nothing would be left.
    """
    total = dropped = 0
    rows: list[dict[str, Any]] = []
    with nullcontext() if kept is None else QuestionWriter(kept) as writer:
        for question, hits in known.compare(questions):
            total += 1
            on_question(total)
            drop = any(hit.counts(by) for hit in hits)
            dropped += drop
            if hits:
                rows.append(told(question, hits))
            if writer is not None and not drop:
                writer.write(question)
        if writer is not None and dropped == total:
            raise UserError(
                f"every question overlaps with a benchmark by {by}; give another --by, or other "
                "questions"
            )
    return Overlap(total, len(rows), dropped, known.tallies, rows)
