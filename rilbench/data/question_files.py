"""Files of questions; `docs/data.md` describes the formats for users.

Parquet with the columns ``id`` (text, unique), ``images`` (list of encoded image files),
``question`` (text), ``answer`` (text, what the judge compares with) and ``source`` (text, such as
the name of a data set); or JSON lines with the same fields (`rilbench.data.jsonl`). ``<image>`` in
the text marks where an image goes, once for each image; without it, the images come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rilbench.data.jsonl import ImageRoot, parse_line, read_lines, to_text
from rilbench.data.question import PLACEHOLDER, Question, check_question
from rilbench.data.row_files import as_written, row_file
from rilbench.errors import InvalidQuestionError, UserError

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

_BATCH = 64
"""Rows read at a time."""


def read_questions(*paths: Path) -> list[Question]:
    """Read files of questions; raises as `iter_questions` does."""
    return list(iter_questions(*paths))


def iter_questions(
    *paths: Path, on_file: Callable[[Path], object] = lambda _: None
) -> Iterator[Question]:
    """Read files of questions, one after another and a few questions at a time.

    Args:
        paths: the files.
        on_file: called with each before its first question.

    Raises:
        UserError: a file is missing, neither Parquet nor JSON lines, lacks a column, is empty, has
            an invalid question (`check_question`), or they have an id twice.
    """
    found: dict[str, Path] = {}
    for path in paths:
        before = len(found)
        on_file(path)
        for question in _read_file(path):
            if question.id in found:
                raise UserError(_twice(question.id, path, found[question.id]))
            found[question.id] = path
            yield question
        if len(found) == before:
            raise UserError(f"{path} is empty; give a file with questions")


def _twice(name: str, path: Path, before: Path) -> str:
    if path == before:
        return f"{path} has the id {name!r} twice; every question needs its own id"
    return (
        f"{before} and {path} have the same id {name!r}; make one file of them with rilbench data "
        "import FILE FILE --out NEW, which numbers equal ids"
    )


def _read_file(path: Path) -> Iterator[Question]:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the Parquet or JSONL file of questions in it")
    if path.suffix.lower() == ".json":
        raise UserError(
            f"{path} is JSON, and questions are Parquet or JSON lines; write an object a line into "
            f"{path.with_suffix('.jsonl').name}, or convert it with rilbench data import"
        )
    if not path.is_file():
        raise UserError(
            f"{path} does not exist; set data.train and data.dev to Parquet or JSONL files"
        )
    yield from _read_jsonl(path) if path.suffix.lower() in JSONL else _read_parquet(path)


def _read_jsonl(path: Path) -> Iterator[Question]:
    root = ImageRoot(path.parent)
    for number, line in read_lines(path):
        try:
            question = parse_line(line, root, UNNAMED)
        except InvalidQuestionError as error:
            raise UserError(f"line {number} of {path}: {error}") from error
        yield question


def _read_parquet(path: Path) -> Iterator[Question]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(missing)}; see docs/data.md")
            for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
                for row in as_written(batch).to_pylist():
                    yield _parse_row(path, row)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}); see docs/data.md for the formats"
        ) from error


def _parse_row(path: Path, row: dict[str, Any]) -> Question:
    images = row.pop("images")
    if not isinstance(images, list) or not all(isinstance(image, bytes) for image in images):
        raise UserError(
            f"{path}: its images are not lists of bytes; convert it with rilbench data import"
        )
    try:
        texts = {name: "" if value is None else to_text(value, name) for name, value in row.items()}
        texts["source"] = texts["source"] or UNNAMED
        return check_question(Question(images=tuple(images), **texts))
    except InvalidQuestionError as error:
        raise UserError(f"{path}, question {row['id']!r}: {error}") from error


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a Parquet file of questions, whole or not at all."""
    with QuestionWriter(path) as writer:
        for question in questions:
            writer.write(question)


class QuestionWriter:
    """Writes a Parquet file of questions, a few at a time; whole, or not at all.

    Raises:
        UserError: its name says that it is JSON, and it would be read as such.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        if path.suffix.lower() in (*JSONL, ".json"):
            raise UserError(f"{path} would be Parquet by another name; end its name in .parquet")
        self.path = path
        schema = pa.schema(
            {name: pa.list_(pa.binary()) if name == "images" else pa.string() for name in COLUMNS}
        )
        self._open = row_file(path, schema)

    def __enter__(self) -> QuestionWriter:
        self._rows = self._open.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def write(self, question: Question) -> None:
        """Add a question."""
        self._rows.write({name: getattr(question, name) for name in COLUMNS})
