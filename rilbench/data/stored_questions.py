"""A run's questions: the texts in memory, the pictures in one file that every part of it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rilbench.data.question import Question, StoredQuestion
from rilbench.data.question_files import iter_questions
from rilbench.data.row_files import read_column_metadata, write_column
from rilbench.errors import UserError
from rilbench.images import as_seen_if_readable

_BATCH_BYTES = 16 << 20
"""Pictures in memory at a time; a batch of Arrow holds 2 GiB."""
_HASH = "rilbench.questions"


class QuestionScan:
    """One reading of files of questions: iterate once, then `questions` has the texts.

    Each question is yielded while its pictures are in memory, as models see them.

    Args:
        paths: the files.
        pictures: where `store_pictures` will write the pictures.
        first: the number of the first picture there.
    """

    def __init__(self, paths: Sequence[Path], pictures: Path, first: int) -> None:
        self.paths, self.pictures = tuple(paths), pictures
        self.questions: list[StoredQuestion] = []
        self.changed: set[int] = set()
        """Numbers of the pictures that models see otherwise than the files have them."""
        self.end = first
        """The number after that of the last picture."""
        self._starts: list[int] = []
        """Of each file, how many questions are before it."""

    def __iter__(self) -> Iterator[Question]:
        """Yield each question; raises as `iter_questions` does."""
        for question in iter_questions(
            *self.paths, on_file=lambda _: self._starts.append(len(self.questions))
        ):
            seen = replace(question, images=tuple(map(as_seen_if_readable, question.images)))
            yield seen
            pairs = zip(question.images, seen.images, strict=True)
            self.changed |= {i for i, (old, new) in enumerate(pairs, self.end) if old is not new}
            self.questions.append(StoredQuestion(seen, self.pictures, self.end))
            self.end += seen.num_images

    @property
    def by_file(self) -> dict[Path, list[StoredQuestion]]:
        """The questions of each file."""
        ends = [*self._starts[1:], len(self.questions)]
        parts = zip(self.paths, self._starts, ends, strict=True)
        return {path: self.questions[start:end] for path, start, end in parts}


def store_pictures(pictures: Path, scans: Sequence[QuestionScan]) -> None:
    """Write the pictures of files of questions, unless they are there.

    Args:
        pictures: the file of `rilbench.data.row_files.write_column`.
        scans: of each file, in the order of the pictures' numbers.

    Raises:
        UserError: a file of questions is no longer as it was when it was scanned.
    """
    digest = hashlib.sha256()
    for scan in scans:
        for question in scan.questions:
            digest.update(f"{question.id}\x1f{question.sha256}\x1e".encode())
    if read_column_metadata(pictures).get(_HASH) == digest.hexdigest():
        return

    def images() -> Iterator[list[bytes]]:
        some: list[bytes] = []
        size = 0
        for scan in scans:
            read = iter_questions(*scan.paths)
            for stored in scan.questions:
                question = next(read, None)
                if question is None or (question.id, question.num_images) != (
                    stored.id,
                    stored.num_images,
                ):
                    names = ", ".join(map(str, scan.paths))
                    raise UserError(f"{names} changed while it was read; run again")
                for number, image in zip(stored.rows, question.images, strict=True):
                    some.append(as_seen_if_readable(image) if number in scan.changed else image)
                    size += len(some[-1])
                if size >= _BATCH_BYTES:
                    yield some
                    some, size = [], 0
        yield some

    write_column(pictures, images(), "binary", {_HASH: digest.hexdigest()})
