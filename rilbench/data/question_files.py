"""The questions that a run trains on, and their file formats; docs/data.md tells them to a reader.

A Parquet file with the columns ``id`` (text, unique), ``images`` (list of encoded image files),
``question`` (text), ``answer`` (text, what the judge compares with) and ``source`` (text, e.g. the
data set that it is from); or JSON lines with the same fields (`rilbench.data.jsonl`).
``<image>`` in the text says where a picture goes, once for each; without it, the pictures come
first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rilbench.data.jsonl import question_of, read_lines
from rilbench.data.question import PLACEHOLDER, Question, RefusedError, checked
from rilbench.errors import UserError

__all__ = [
    "COLUMNS",
    "PLACEHOLDER",
    "Question",
    "QuestionWriter",
    "iter_questions",
    "read_questions",
    "write_questions",
]

COLUMNS = ("id", "images", "question", "answer", "source")
JSONL = (".jsonl", ".ndjson")
UNNAMED = "unnamed"
"""The source of a question that names none."""

_ROWS = 64
"""Rows that are read at a time."""
_GROUP = 64 << 20
"""Bytes of pictures after which a row group is written: a reader needs no more at a time."""


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        UserError: as of `iter_questions`.
    """
    return list(iter_questions(path))


def iter_questions(path: Path) -> Iterator[Question]:
    """Read a file of questions, a few at a time.

    Raises:
        UserError: it is missing, neither Parquet nor JSON lines, lacks a column, is empty, has an
            id twice, or a question without text, answer or image, or with more or fewer
            placeholders than images.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; set data.train and data.dev to Parquet or JSONL files"
        )
    rows = _jsonl(path) if path.suffix.lower() in JSONL else _parquet(path)
    seen: set[str] = set()
    for question in rows:
        if question.id in seen:
            raise UserError(
                f"{path} has the id {question.id!r} twice; every question needs its own id"
            )
        seen.add(question.id)
        yield question
    if not seen:
        raise UserError(f"{path} is empty; give a file with questions")


def _jsonl(path: Path) -> Iterator[Question]:
    for number, line in read_lines(path):
        yield _of_line(path, number, line)


def _of_line(path: Path, number: int, line: bytes) -> Question:
    try:
        return question_of(line, path.parent, UNNAMED)
    except RefusedError as error:
        raise UserError(f"line {number} of {path}: {error}") from error


def _parquet(path: Path) -> Iterator[Question]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(missing)}; see docs/data.md")
            for batch in file.iter_batches(_ROWS, columns=list(COLUMNS)):
                for row in batch.to_pylist():
                    yield _of_row(path, row)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}); see docs/data.md for the formats"
        ) from error


def _of_row(path: Path, row: dict[str, Any]) -> Question:
    images = tuple(row["images"] or ())
    if not all(isinstance(image, bytes) for image in images):
        raise UserError(
            f"{path} has no list of bytes as images; rilbench data import makes one of columns "
            "with pictures"
        )
    try:
        return checked(
            Question(
                id=_text(row["id"]),
                images=images,
                question=_text(row["question"]),
                answer=_text(row["answer"]),
                source=_text(row["source"]) or UNNAMED,
            )
        )
    except RefusedError as error:
        raise UserError(f"{path}: {error}") from error


def _text(value: object) -> str:
    """A column's value as text; nothing stays nothing."""
    return "" if value is None else str(value)


class QuestionWriter:
    """Writes a Parquet file of questions, a few at a time; whole, or not at all."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = path.with_name(f".{path.name}.part")
        kinds = {
            name: pa.list_(pa.binary()) if name == "images" else pa.string() for name in COLUMNS
        }
        self._schema = pa.schema(kinds)
        self._file = pq.ParquetWriter(self._part, self._schema)
        self._waiting: list[Question] = []
        self._bytes = 0

    def __enter__(self) -> QuestionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._flush()
        self._file.close()
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, question: Question) -> None:
        """Add a question."""
        self._waiting.append(question)
        self._bytes += sum(len(image) for image in question.images)
        if self._bytes >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        rows = [{name: getattr(q, name) for name in COLUMNS} for q in self._waiting]
        if rows:
            self._file.write_table(pa.Table.from_pylist(rows, self._schema))
        self._waiting, self._bytes = [], 0


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write a file of questions."""
    with QuestionWriter(path) as writer:
        for question in questions:
            writer.write(question)
