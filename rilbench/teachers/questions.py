"""The questions that a run trains on, and their file format.

A Parquet file with the columns ``id`` (text, unique), ``images`` (list of encoded image files),
``question`` (text), ``answer`` (text, what the judge compares with) and ``source`` (text, e.g. the
data set that it is from). ``<image>`` in the text says where a picture goes, once for each; without
it, the pictures come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rilbench.errors import UserError

PLACEHOLDER = "<image>"
COLUMNS = ("id", "images", "question", "answer", "source")


@dataclass(frozen=True)
class Question:
    """One question with its pictures and its ground truth."""

    id: str
    images: tuple[bytes, ...]
    question: str
    answer: str
    source: str

    @property
    def marked(self) -> str:
        """The text with ``<image>`` wherever a picture goes."""
        if PLACEHOLDER in self.question:
            return self.question
        return PLACEHOLDER * len(self.images) + self.question

    @property
    def parts(self) -> list[str | bytes]:
        """Texts and encoded images in the order in which the model sees them."""
        first, *texts = self.marked.split(PLACEHOLDER)
        parts: list[str | bytes] = [first]
        for image, text in zip(self.images, texts, strict=True):
            parts += [image, text]
        return [part for part in parts if part]


def read_questions(path: Path) -> list[Question]:
    """Read a file of questions.

    Raises:
        UserError: it is missing, not Parquet, lacks a column, is empty, has an id twice, or a
            question without text, answer or image, or with more or fewer placeholders than images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UserError(f"{path} does not exist; set data.train and data.dev to Parquet files")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is not a Parquet file ({error}); see the README's format"
        ) from error
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; see the README's format")
    rows = table.select(list(COLUMNS)).to_pylist()
    questions = [
        Question(
            id=_text(row["id"]),
            images=tuple(row["images"] or ()),
            question=_text(row["question"]),
            answer=_text(row["answer"]),
            source=_text(row["source"]) or "unnamed",
        )
        for row in rows
    ]
    bad = [q.id for q in questions if not (q.id and q.question and q.answer and q.images)]
    if bad:
        raise UserError(
            f"{path}: question {bad[0]!r} lacks id, text, answer or image; mend or drop it"
        )
    places = [q.id for q in questions if q.marked.count(PLACEHOLDER) != len(q.images)]
    if places:
        raise UserError(
            f"{path}: question {places[0]!r} has another number of {PLACEHOLDER} than of images; "
            "write one for each, or none"
        )
    if not questions or len({q.id for q in questions}) != len(questions):
        raise UserError(f"{path} is empty or has an id twice; every question needs its own id")
    return questions


def _text(value: object) -> str:
    """A column's value as text; nothing stays nothing."""
    return "" if value is None else str(value)


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write a file of questions."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": [q.id for q in questions],
            "images": pa.array([list(q.images) for q in questions], pa.list_(pa.binary())),
            "question": [q.question for q in questions],
            "answer": [q.answer for q in questions],
            "source": [q.source for q in questions],
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
