"""A data set of the Hugging Face hub as its repository has it: Parquet with image columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rilbench.data.conversations import read_turns, turn_questions
from rilbench.data.jsonl import as_list, to_image, to_text
from rilbench.data.question import InvalidQuestionError, Question
from rilbench.errors import UserError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "id": ("id",),
    "images": ("images", "image"),
    "question": ("question", "query"),
    "answer": ("answer", "label"),
    "options": (),
    "conversation": ("conversations", "texts", "messages"),
    "source": ("source", "data_source"),
}
"""The fields of a question, and the columns that are used for each unless the user names one."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BATCH = 64
"""Rows read at a time."""


class HubParquet:
    """Parquet files of a downloaded repository, or one such file.

    Args:
        place: the folder, or a file.
        split: the split to read, by file name (``train-00000-of-00002.parquet``) or folder.
        columns: field → column, where a column has another name than `FIELDS` knows.
        all_turns: make every turn of a conversation a question instead of the first alone.
        source: the source of rows without such a column.

    Raises:
        UserError: there is no such file, or no column for a field.
    """

    def __init__(
        self, place: Path, split: str, columns: Mapping[str, str], all_turns: bool, source: str
    ) -> None:
        unknown = [field for field in columns if field not in FIELDS]
        if unknown:
            raise UserError(f"--columns {unknown[0]}=… is not known; use {', '.join(FIELDS)}")
        self.folder = place if place.is_dir() else place.parent
        self.files = find_files(place, split)
        self.all_turns, self.source = all_turns, source
        self.columns = _choose_columns(self.files[0], columns)

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Yield each row by field; see `Format`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.files:
            number = 0
            try:
                with pq.ParquetFile(path, pre_buffer=False) as file:
                    names = sorted(set(self.columns.values()))
                    for batch in file.iter_batches(_BATCH, columns=names):
                        for row in batch.to_pylist():
                            number += 1
                            place = f"{path.relative_to(self.folder)} row {number}"
                            yield place, {f: row[name] for f, name in self.columns.items()}
            except (pa.ArrowException, OSError, KeyError) as error:
                raise UserError(
                    f"{path} cannot be read after row {number} ({error}); download it again"
                ) from error

    def questions(self, place: str, row: Any) -> list[Question]:
        """Return the questions of a row; see `Format`."""
        cells = [cell for cell in as_list(row["images"]) if cell is not None]
        images = tuple(_image(cell, self.folder) for cell in cells)
        if not images:
            raise InvalidQuestionError("it has no image; drop it")
        if "conversation" in row:
            turns = read_turns(row["conversation"], len(images), self.all_turns)
        else:
            question, answer = to_text(row["question"], "question"), row["answer"]
            if isinstance(answer, list):  # several accepted answers: alternatives for the judge
                texts = [to_text(text, "answer").strip() for text in answer]
                answer = "<OR>".join(dict.fromkeys(filter(None, texts)))
            turns = [_with_options(question, answer, row.get("options"))]
        id_ = place.replace(" row ", "-") if row.get("id") in (None, "") else row["id"]
        source = to_text(row.get("source") or self.source, "source")
        return turn_questions(to_text(id_, "id"), images, turns, source)


def find_files(place: Path, split: str) -> list[Path]:
    """Return a repository's Parquet files of one split.

    Raises:
        UserError: there is none; the message lists the existing splits.
    """
    if place.is_file():
        return [place]
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else []
    chosen = [path for path in files if split in (_split(path), path.parent.name)]
    if not chosen:
        splits = ", ".join(sorted({_split(path) for path in files})) or "no Parquet file"
        if files:
            remedy = "give another --split, or a file"
        elif any(place.rglob("*.arrow")):
            remedy = "save it with Dataset.to_parquet"
        else:
            remedy = "give a folder from the hub"
        raise UserError(f"{place} has no Parquet file of the split {split!r} ({splits}); {remedy}")
    return chosen


def _split(path: Path) -> str:
    return path.stem.split("-")[0]


def _choose_columns(path: Path, chosen: Mapping[str, str]) -> dict[str, str]:
    """The column of each field: the user's choice, else the first of `FIELDS` that exists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file ({error}); download it again") from error
    columns = dict(chosen)
    for field, candidates in FIELDS.items():
        existing = [name for name in candidates if name in names]
        if field not in columns and existing:
            columns[field] = existing[0]
    if "question" in chosen or {"question", "answer"} <= set(columns):
        columns.pop("conversation", None)
    needed = ("images",) if "conversation" in columns else ("images", "question", "answer")
    lacking = [field for field in needed if field not in columns]
    lacking += [field for field, name in columns.items() if name not in names]
    if lacking:
        raise UserError(
            f"{path} has no column for {', '.join(lacking)}; name it with --columns, such as "
            f"{lacking[0]}=NAME; its columns are {', '.join(names)}"
        )
    return columns


def _image(cell: Any, folder: Path) -> bytes:
    """The image in a cell: bytes, a struct of bytes and path, or a path."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return content if isinstance(content, bytes) else to_image(cell, folder)


def _with_options(question: str, answer: Any, options: Any) -> tuple[str, str]:
    """The question with its options below it, and the letter of the right one.

    Raises:
        InvalidQuestionError: the answer is not one of the options, or is ambiguous.
    """
    if not options:
        return question, to_text(answer, "answer")
    texts = [to_text(option, "options") for option in options]
    right = _right_option(answer, texts)
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    return "\n".join([question, *lines]), LETTERS[right]


def _right_option(answer: Any, options: list[str]) -> int:
    """The index of the right option, which is given by its text, its letter or its index."""
    if len(options) > len(LETTERS):
        raise InvalidQuestionError(f"it has {len(options)} options; drop it")
    text = to_text(answer, "answer").strip()
    index = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None
    matches = [i for i, option in enumerate(options) if option.strip() == text]
    if isinstance(answer, int) or not matches:
        matches = [index] if index is not None else matches or [LETTERS.find(text or "?")]
    elif index is not None and index < len(options) and index not in matches:
        raise InvalidQuestionError(
            f"its answer {text!r} is one option and the number of another; fix it"
        )
    if len(matches) != 1 or not 0 <= matches[0] < len(options):
        raise InvalidQuestionError(f"its answer {text!r} is not one of its options; drop it")
    return matches[0]
