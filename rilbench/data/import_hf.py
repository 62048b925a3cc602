"""A data set of Hugging Face's `datasets`, as the hub keeps it: Parquet with image columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rilbench.data.conversations import asked, pairs
from rilbench.data.import_llava import conversation_questions
from rilbench.data.jsonl import picture_of, text_of
from rilbench.data.question import Question, RefusedError
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
"""What a question is made of, and the columns that are taken for it where none is named."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ROWS = 64


class Hub:
    """Parquet files of a repository that was downloaded, or one such file.

    Args:
        place: the folder, or a file.
        split: whose files are read, by name (``train-00000-of-00002.parquet``) or folder.
        columns: field → column, for those that have other names than `FIELDS` knows.
        every: of a conversation, ask each turn by itself instead of the first alone.
        source: of rows without such a column.

    Raises:
        UserError: there is no such file, or no column for a field.
    """

    def __init__(
        self, place: Path, split: str, columns: Mapping[str, str], every: bool, source: str
    ) -> None:
        unknown = [field for field in columns if field not in FIELDS]
        if unknown:
            raise UserError(f"--columns {unknown[0]}=… is not known; use {', '.join(FIELDS)}")
        self.folder = place if place.is_dir() else place.parent
        self.files = files_of(place, split)
        self.every, self.source = every, source
        self.columns = self._columns(columns)

    def _columns(self, chosen: Mapping[str, str]) -> dict[str, str]:
        names = _names(self.files[0])
        found = dict(chosen)
        for field, candidates in FIELDS.items():
            there = [name for name in candidates if name in names]
            if field not in found and there:
                found[field] = there[0]
        if "question" in chosen or {"question", "answer"} <= set(found):
            found.pop("conversation", None)
        wanted = ("images",) if "conversation" in found else ("images", "question", "answer")
        lacking = [field for field in wanted if field not in found]
        lacking += [field for field, name in found.items() if name not in names]
        if lacking:
            raise UserError(
                f"{self.files[0]} has no column for {', '.join(lacking)}; name it with --columns, "
                f"such as {lacking[0]}=NAME; there is {', '.join(names)}"
            )
        return found

    def rows(self) -> Iterator[tuple[str, Any]]:
        """Each row by field, and where it stands."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self.files:
            number = 0
            try:
                with pq.ParquetFile(path) as file:
                    names = sorted(set(self.columns.values()))
                    for batch in file.iter_batches(_ROWS, columns=names):
                        for row in batch.to_pylist():
                            number += 1
                            place = f"{path.relative_to(self.folder)} row {number}"
                            yield place, {f: row[name] for f, name in self.columns.items()}
            except (pa.ArrowException, OSError, KeyError) as error:
                raise UserError(
                    f"{path} cannot be read after row {number} ({error}); download it again"
                ) from error

    def questions(self, place: str, row: Any) -> list[Question]:
        """What a row asks.

        Raises:
            RefusedError: a field of it is none.
        """
        given = row["images"]
        values = given if isinstance(given, list) else [given]
        images = tuple(_picture(each, self.folder) for each in values if each is not None)
        if not images:
            raise RefusedError("it has no picture; drop it")
        if "conversation" in row:
            turns = asked(pairs(row["conversation"]), len(images), self.every)
        else:
            question = text_of(row["question"], "question")
            turns = [_with_options(question, _answer(row["answer"]), row.get("options"))]
        name = place.replace(" row ", "-") if row.get("id") in (None, "") else row["id"]
        source = text_of(row.get("source") or self.source, "source")
        return conversation_questions(text_of(name, "id"), images, turns, source)


def files_of(place: Path, split: str) -> list[Path]:
    """A repository's Parquet files of one split.

    Raises:
        UserError: there is none, with the splits that there are.
    """
    if place.is_file():
        return [place]
    found = sorted(place.rglob("*.parquet")) if place.is_dir() else []
    chosen = [path for path in found if split in (_split(path), path.parent.name)]
    if not chosen:
        splits = ", ".join(sorted({_split(path) for path in found})) or "no Parquet file"
        arrow = place.is_dir() and any(place.rglob("*.arrow"))
        remedy = "give another --split, or a file" if found else "give a folder from the hub"
        remedy = "save it with Dataset.to_parquet" if arrow and not found else remedy
        raise UserError(f"{place} has no Parquet file of the split {split!r} ({splits}); {remedy}")
    return chosen


def _split(path: Path) -> str:
    return path.stem.split("-")[0]


def _names(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names: list[str] = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a Parquet file ({error}); download it again") from error
    return names


def _picture(value: Any, folder: Path) -> bytes:
    """A cell of an image column: bytes, or a struct of bytes and path."""
    content = value.get("bytes") if isinstance(value, dict) else value
    if isinstance(content, bytes):
        return content
    return picture_of(value, folder)


def _answer(value: Any) -> Any:
    """An answer; several that are accepted are alternatives of the judge's."""
    if isinstance(value, list):
        texts = [text_of(each, "answer").strip() for each in value]
        return "<OR>".join(dict.fromkeys(filter(None, texts)))
    return value


def _with_options(question: str, answer: Any, options: Any) -> tuple[str, str]:
    """The question with its options under it, and the letter of the right one.

    Raises:
        RefusedError: the answer is none of them, or both a text and a number of two of them.
    """
    if not options:
        return question, text_of(answer, "answer")
    texts = [text_of(each, "options") for each in options]
    right = _chosen(answer, texts)
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    return "\n".join([question, *lines]), LETTERS[right]


def _chosen(answer: Any, options: list[str]) -> int:
    """Which option is right, from 0: by its text, its letter, or its number from 0."""
    if len(options) > len(LETTERS):
        raise RefusedError(f"it has {len(options)} options; drop it")
    text = text_of(answer, "answer").strip()
    numbered = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None
    ways = [i for i, option in enumerate(options) if option.strip() == text]
    if isinstance(answer, int) or not ways:
        ways = [numbered] if numbered is not None else ways or [LETTERS.find(text or "?")]
    elif numbered is not None and numbered < len(options) and numbered not in ways:
        raise RefusedError(f"its answer {text!r} is one option and the number of another; mend it")
    if len(ways) != 1 or not 0 <= ways[0] < len(options):
        raise RefusedError(f"its answer {text!r} is not one of its options; drop it")
    return ways[0]
