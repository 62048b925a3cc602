"""Convert a data set to a file of questions; entries that cannot be used are counted and shown."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from rilbench.data.data_set_files import DataFile, count_rows, find_files, read_rows
from rilbench.data.jsonl import ImageRoot
from rilbench.data.layouts import Columns, check_fields, recognise, row_questions
from rilbench.data.question import Question, check_question
from rilbench.data.question_files import write_questions
from rilbench.errors import InvalidQuestionError, UserError
from rilbench.images import as_seen, check_image

SHOWN = 10
"""How many skipped entries are reported with their reasons."""
SAMPLES = 3
"""How many imported questions are shown."""


@dataclass(frozen=True)
class Options:
    """How a data set is read."""

    split: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field → column, where that is not the one of the recognised layout."""
    images: Path | None = None
    """Folder that image paths start from; default: the data set's."""
    follow_links: bool = False
    all_turns: bool = False
    """Make a question of every turn of a conversation."""
    whole_answers: bool = False
    """Take answers as they are: responses to learn, and no gold answers."""
    text_only: bool = False
    """Take rows without an image as well, as questions of text only."""
    source: str = ""
    """Source of questions without one; default: the file's name."""

    def root(self, file: DataFile) -> ImageRoot:
        """Where a file's images are read from."""
        return ImageRoot(self.images or file.folder, self.images is not None, self.follow_links)


@dataclass
class Report:
    """Counts of an import."""

    rows: int = 0
    questions: int = 0
    skipped: int = 0
    examples: list[str] = field(default_factory=list)
    """The first skipped rows, with their reasons."""
    unused_files: list[str] = field(default_factory=list)
    """Files that could not be used, or not to their end, with the reasons."""
    without_image: int = 0
    """Of the questions, those of text only."""
    renamed: int = 0
    """Duplicate ids that got a number."""
    layouts: Counter[str] = field(default_factory=Counter)
    """Recognised layouts with the columns that are used, and their questions."""
    samples: list[Question] = field(default_factory=list)
    """A few of the questions, drawn at random."""


OnRow = Callable[[int, int], object]
"""Called with the number of rows so far and of all rows, 0 where that is not known."""


def read_data_set(
    sources: Sequence[Path], options: Options, report: Report, on_row: OnRow
) -> Iterator[Question]:
    """Yield all valid questions of a data set, and count them in ``report``.

    Args:
        sources: its files and folders.
        options: how it is read.
        report: an empty one.
        on_row: called before each row.

    Raises:
        UserError: there is no file, the only one cannot be read, or none has a valid question.
    """
    check_fields(options.columns)
    files = [file for source in sources for file in find_files(source, options.split)]
    chance = random.Random(0)
    for question in _unique(_questions(files, options, report, on_row), report):
        report.without_image += not question.num_images
        _keep_sample(question, report, chance)
        yield question
    if not report.questions:
        reasons = [*report.unused_files, *report.examples][:1]
        raise UserError(
            f"none of {report.rows} rows is a question with an image"
            f"{''.join(f' ({reason})' for reason in reasons)}; see docs/data.md for the layouts"
        )


def import_questions(sources: Sequence[Path], out: Path, options: Options, on_row: OnRow) -> Report:
    """Write all valid questions of a data set to a Parquet file, whole and only if there is one.

    Arguments and errors are those of `read_data_set`.
    """
    report = Report()
    write_questions(out, read_data_set(sources, options, report, on_row))
    return report


def _questions(
    files: Sequence[DataFile], options: Options, report: Report, on_row: OnRow
) -> Iterator[Question]:
    """Yield the valid questions of all files; an unusable file costs its own rows only."""
    # Rows of JSON may have other columns each; few combinations occur.
    read = partial(recognise, chosen=options.columns, text_only=options.text_only)
    known = lru_cache(maxsize=1024)(read)
    total = count_rows(files)
    for file in files:
        try:
            for number, columns, row in read_rows(file, known):
                report.rows += 1
                on_row(report.rows, total)
                try:
                    questions = _row_questions(file, number, columns, row, options)
                except InvalidQuestionError as error:
                    report.skipped += 1
                    if len(report.examples) < SHOWN:
                        report.examples.append(f"{file.name} row {number}: {error}")
                    continue
                report.layouts[str(columns)] += len(questions)
                yield from questions
        except UserError as error:
            if len(files) == 1:
                raise
            report.unused_files.append(str(error))


def _row_questions(
    file: DataFile, number: int, columns: Columns | InvalidQuestionError, row: Any, options: Options
) -> list[Question]:
    """All questions of a row, or none: one broken image makes the others suspect."""
    if isinstance(columns, InvalidQuestionError):
        raise columns
    questions = row_questions(
        columns,
        row,
        options.root(file),
        default_id=f"{file.name}-{number}",
        default_source=options.source or file.source,
        all_turns=options.all_turns,
        whole_answers=options.whole_answers,
        text_only=options.text_only,
    )
    seen = {image: _checked(image) for question in questions for image in question.images}
    return [
        check_question(replace(question, images=tuple(map(seen.__getitem__, question.images))))
        for question in questions
    ]


def _checked(image: bytes) -> bytes:
    check_image(image)
    return as_seen(image)


def _unique(questions: Iterable[Question], report: Report) -> Iterator[Question]:
    """Yield the questions; one whose id occurred before gets a number."""
    ids: set[str] = set()
    repeats: Counter[str] = Counter()
    for question in questions:
        unique = question.id
        while unique in ids:
            repeats[question.id] += 1
            unique = f"{question.id}#{repeats[question.id] + 1}"
        ids.add(unique)
        report.renamed += unique != question.id
        yield replace(question, id=unique)


def _keep_sample(question: Question, report: Report, chance: random.Random) -> None:
    """Keep `SAMPLES` of the questions so far, each with the same probability."""
    report.questions += 1
    if len(report.samples) < SAMPLES:
        report.samples.append(question)
    elif (place := chance.randrange(report.questions)) < SAMPLES:
        report.samples[place] = question
