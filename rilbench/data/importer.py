"""Convert a data set to a file of questions; entries that cannot be used are counted and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rilbench.data.images import check_image
from rilbench.data.jsonl import parse_line, read_lines
from rilbench.data.question import InvalidQuestionError, Question, check_question
from rilbench.data.question_files import QuestionWriter
from rilbench.errors import UserError

SHOWN = 10
"""How many skipped entries are reported with their reasons."""


class Format(Protocol):
    """A data set in some format."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each row with its place, such as ``line 3``.

        Raises:
            UserError: the rest of the file cannot be read.
        """

    def questions(self, place: str, row: Any) -> list[Question]:
        """Return the questions of one row.

        Raises:
            InvalidQuestionError: the row has no valid question.
        """


class JsonLines:
    """JSON lines as a run reads them, but an invalid line is skipped and not an error."""

    def __init__(self, file: Path, images: Path, source: str) -> None:
        self.file, self.images, self.source = file, images, source

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Yield each line; see `Format`."""
        for number, line in read_lines(self.file):
            yield f"line {number}", line

    def questions(self, place: str, row: bytes) -> list[Question]:
        """Return the line's question; see `Format`."""
        return [parse_line(row, self.images, self.source)]


@dataclass
class Report:
    """Counts of an import."""

    rows: int = 0
    questions: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first skipped rows, with their reasons."""
    renamed: int = 0
    """Duplicate ids that got a number."""


def import_questions(source: Format, out: Path, on_row: Callable[[int], None]) -> Report:
    """Write all valid questions of a data set to a Parquet file.

    Args:
        source: the data set.
        out: the Parquet file; written whole, and only if there is a question.
        on_row: called with the number of rows so far.

    Raises:
        UserError: the source cannot be read, or has no valid question.
    """
    report = Report()
    ids: set[str] = set()
    repeats: Counter[str] = Counter()
    with QuestionWriter(out) as writer:
        for place, row in source.rows():
            report.rows += 1
            on_row(report.rows)
            try:
                # All questions of a row, or none: one broken image makes the others suspect.
                questions = [check_question(q) for q in source.questions(place, row)]
                for image in {image for question in questions for image in question.images}:
                    check_image(image)
            except InvalidQuestionError as error:
                report.skipped += 1
                if len(report.examples) < SHOWN:
                    report.examples.append(f"{place}: {error}")
                continue
            for question in questions:
                unique = question.id
                while unique in ids:
                    repeats[question.id] += 1
                    unique = f"{question.id}#{repeats[question.id] + 1}"
                ids.add(unique)
                report.renamed += unique != question.id
                writer.write(replace(question, id=unique))
                report.questions += 1
        if not report.questions:
            first = f" ({report.examples[0]})" if report.examples else ""
            raise UserError(
                f"none of {report.rows} rows is a question with an image{first}; see "
                "docs/data.md, or give another --from"
            )
    return report
