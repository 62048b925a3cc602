"""A run's questions: the texts in memory, the pictures in one file that every part of it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rilbench.data.images import as_seen
from rilbench.data.question import Question, StoredQuestion
from rilbench.data.question_files import iter_questions
from rilbench.data.row_files import read_column_metadata, write_column
from rilbench.errors import UserError

_HASH = "rilbench.questions"


def seen_questions(path: Path) -> Iterator[Question]:
    """Read a file's questions one by one, their images as models see them.

    Raises:
        UserError: as `iter_questions`.
    """
    for question in iter_questions(path):
        yield replace(question, images=tuple(map(as_seen, question.images)))


def scan_questions(path: Path, pictures: Path, first: int) -> list[StoredQuestion]:
    """Read a file of questions, keeping the texts.

    Args:
        path: the file.
        pictures: where `store_pictures` will write the pictures.
        first: the number of the first picture there.

    Raises:
        UserError: as `iter_questions`.
    """
    stored = []
    for question in seen_questions(path):
        stored.append(StoredQuestion(question, pictures, first))
        first += question.num_images
    return stored


def store_pictures(
    pictures: Path, sources: Sequence[tuple[Path, Sequence[StoredQuestion]]]
) -> None:
    """Write the pictures of files of questions, unless they are there.

    Args:
        pictures: the file of `rilbench.data.row_files.write_column`.
        sources: each file with its scanned questions, in the order of the pictures' numbers.

    Raises:
        UserError: a file of questions is no longer as it was when it was scanned.
    """
    digest = hashlib.sha256()
    for _, questions in sources:
        for question in questions:
            digest.update(f"{question.id}\x1f{question.sha256}\x1e".encode())
    if read_column_metadata(pictures).get(_HASH) == digest.hexdigest():
        return

    def images() -> Iterator[bytes]:
        for path, questions in sources:
            read = seen_questions(path)
            for stored in questions:
                question = next(read, None)
                if question is None or (question.id, question.num_images) != (
                    stored.id,
                    stored.num_images,
                ):
                    raise UserError(f"{path} changed while it was read; run again with --resume")
                yield from question.images

    write_column(pictures, images(), "binary", {_HASH: digest.hexdigest()})
