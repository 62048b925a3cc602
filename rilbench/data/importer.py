"""Questions of another format as a file of ours: what cannot be read is counted, and told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rilbench.data.images import check_picture
from rilbench.data.jsonl import question_of, read_lines
from rilbench.data.question import Question, RefusedError, checked
from rilbench.data.question_files import QuestionWriter
from rilbench.errors import UserError

SHOWN = 10
"""Of the rows that were skipped, so many are named."""


class Format(Protocol):
    """A file, or folder of files, of another format."""

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Each row, and where it stands.

        Raises:
            UserError: the rest of the file cannot be read.
        """

    def questions(self, place: str, row: Any) -> list[Question]:
        """What a row asks.

        Raises:
            RefusedError: nothing that could be asked.
        """


class Jsonl:
    """JSON lines as a run reads them, but without the rows that it would stop at."""

    def __init__(self, file: Path, images: Path, source: str) -> None:
        self.file, self.images, self.source = file, images, source

    def rows(self) -> Iterator[tuple[str, bytes]]:
        """Each line."""
        for number, line in read_lines(self.file):
            yield f"line {number}", line

    def questions(self, place: str, row: bytes) -> list[Question]:
        """Its question."""
        return [question_of(row, self.images, self.source)]


@dataclass
class Report:
    """What an import did."""

    rows: int = 0
    questions: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first rows that were skipped, with their reasons."""
    renamed: int = 0
    """Ids that were there already and got a number."""


def import_questions(source: Format, out: Path, on_row: Callable[[int], None]) -> Report:
    """Write all questions of a source that can be asked.

    Args:
        source: what is read.
        out: the Parquet file; replaced whole, and only if there is a question.
        on_row: called with the number of rows so far.

    Raises:
        UserError: the source cannot be read, or has no question at all.
    """
    report, ids = Report(), _Ids()
    with QuestionWriter(out) as writer:
        for place, row in source.rows():
            report.rows += 1
            on_row(report.rows)
            for question in _fit(source, place, row, report):
                own = ids.own(question.id)
                report.renamed += own != question.id
                writer.write(replace(question, id=own))
                report.questions += 1
        if not report.questions:
            first = f" ({report.examples[0]})" if report.examples else ""
            raise UserError(
                f"none of {report.rows} rows is a question with a picture{first}; see "
                "docs/data.md, or give another --from"
            )
    return report


def _fit(source: Format, place: str, row: Any, report: Report) -> list[Question]:
    """What can be asked of a row; none of it where one picture cannot be read."""
    try:
        found = [checked(each) for each in source.questions(place, row)]
        for image in {image for each in found for image in each.images}:
            check_picture(image)
    except RefusedError as error:
        report.skipped += 1
        if len(report.examples) < SHOWN:
            report.examples.append(f"{place}: {error}")
        return []
    return found


class _Ids:
    """Ids that differ: one that is there already gets a number."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last: Counter[str] = Counter()

    def own(self, name: str) -> str:
        found = name
        while found in self._seen:
            self._last[name] += 1
            found = f"{name}#{self._last[name] + 1}"
        self._seen.add(found)
        return found
