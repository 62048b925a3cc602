"""Import responses that exist already, such as a data set of the hub, as a teacher's collection.

A file has a row for each response, or for each question with a list of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rilbench.config import Sampling
from rilbench.data.jsonl import as_list, read_lines, to_text
from rilbench.data.layouts import listed
from rilbench.data.response_store import Plan, SavedResponse, add_responses
from rilbench.data.stored_questions import QuestionScan
from rilbench.errors import InvalidQuestionError, UserError
from rilbench.serving.reply import ONLY_REASONING, split_reasoning

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "question_id"),
    "response": ("response", "responses"),
    "model": ("model",),
    "finish_reason": ("finish_reason",),
}
"""The fields of a response, and the columns that are used for each unless the user names one."""
_BATCH = 1024
"""Rows read at a time."""


@dataclass
class ResponseReport:
    """What an import found."""

    file: Path
    """The collection's Parquet file."""
    model: str
    """Who wrote the responses."""
    questions: int
    rows: int = 0
    responses: dict[str, int] = field(default_factory=dict)
    """Responses to each question that has any."""
    without: list[str] = field(default_factory=list)
    """Questions to which there is none."""
    unknown: list[str] = field(default_factory=list)
    """Ids in the files that are no question's."""
    unusable: list[str] = field(default_factory=list)
    """Rows without a text, with the reason."""
    empty: int = 0
    """Responses without a text in a list with others."""
    other_models: int = 0
    """Rows of other models than the one that is wanted."""
    reasoned: int = 0
    """Responses before which the model wrote its reasoning down."""


def import_responses(
    files: Sequence[Path],
    questions: Sequence[Path],
    teacher: str,
    folder: Path,
    columns: Mapping[str, str],
    *,
    model: str = "",
    keep_reasoning: bool = False,
) -> ResponseReport:
    """Write the collection of one teacher from files of responses.

    Args:
        files: Parquet files, JSON lines, or folders of them.
        questions: the files of questions, as ``data.train`` will name it.
        teacher: its name in the recipe.
        folder: the collection's; it must not have the teacher's file yet.
        columns: field → column, where a column has another name than `COLUMNS` knows.
        model: the model that wrote the responses; rows of others are left out. "": the one that the
            files name.
        keep_reasoning: as in `Plan`.

    Raises:
        UserError: a file cannot be read or lacks a column, the files are of several models or name
            none, or no row is a response to a question.
    """
    sources = [path for place in files for path in _files(place)]
    rows = [_rows(path, columns) for path in sources]
    named = model or str(next(rows[0], ("", {}))[1].get("model") or "")
    if not named:
        raise UserError(f"{sources[0]} names no model; say who wrote the responses: --model NAME")
    # Of their sampling nothing is known.
    plan = Plan(teacher, named, 0, 0, Sampling(), 0, 1, "", keep_reasoning, fields={})
    target = plan.file(folder)
    if target.exists():
        raise UserError(f"{target} exists; delete it, or give another --out")
    hashes = {q.id: q.sha256 for q in QuestionScan(questions, Path(), 0)}
    report = ResponseReport(target, named, len(hashes))

    def responses() -> Iterator[SavedResponse]:
        for path in sources:
            for place, row in _rows(path, columns):
                report.rows += 1
                writer = str(row.get("model") or named)
                if writer != named:
                    if not model:
                        raise UserError(
                            f"the files are of several models ({named}, {writer}); choose one: "
                            "--model NAME"
                        )
                    report.other_models += 1
                    continue
                try:
                    id_, texts, empty = _read_row(row)
                except InvalidQuestionError as error:
                    report.unusable.append(f"{place}: {error}")
                    continue
                if id_ not in hashes:
                    report.unknown.append(id_)
                    continue
                report.empty += empty
                for text, finish in texts:
                    sample = report.responses.get(id_, 0)
                    report.responses[id_] = sample + 1
                    saved = _response(plan, id_, hashes[id_], sample, text, finish)
                    report.reasoned += saved.reasoned
                    yield saved
        if not report.responses:
            raise UserError(
                f"none of {report.rows} rows is a response of {named} to one of the {len(hashes)} "
                f"questions of {', '.join(map(str, questions))}; {_hint(report)}"
            )

    made_of = [{"name": path.name, "sha256": _sha256(path)} for path in sources]
    add_responses(plan, folder, responses(), set(), {"imported": made_of})
    report.without = [id_ for id_ in hashes if id_ not in report.responses]
    return report


def _hint(report: ResponseReport) -> str:
    """What to change where nothing fits."""
    if report.unknown:
        return f"ids there are such as {report.unknown[0]!r}; name their column: --columns id=NAME"
    if report.unusable:
        return f"the first, {report.unusable[0]}"
    return "the rows are of other models: --model NAME"


def _read_row(row: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]], int]:
    """The question's id, the texts of a row with their finish reasons, and how many are empty."""
    id_ = row.get("id")
    if isinstance(id_, float) and id_.is_integer():  # pandas, beside an empty cell
        id_ = int(id_)
    given, finish = as_list(row.get("response")), row.get("finish_reason")
    reasons = finish if isinstance(finish, list) else [finish] * len(given)
    if len(reasons) != len(given):
        raise InvalidQuestionError(
            f"it has {len(given)} responses and {len(reasons)} finish reasons; fix it"
        )
    texts = [
        (to_text(text, "response"), str(reason or "stop"))
        for text, reason in zip(given, reasons, strict=True)
        if text is not None and str(text).strip()
    ]
    if not texts:
        raise InvalidQuestionError("it has no response; drop it")
    return to_text(id_, "id"), texts, len(given) - len(texts)


def _response(
    plan: Plan, id_: str, sha256: str, sample: int, text: str, finish: str
) -> SavedResponse:
    reasoning, text = split_reasoning(text)
    if plan.keep_reasoning and reasoning:
        text = f"<think>\n{reasoning}\n</think>\n\n{text}"
    failure = "" if text.strip() else ONLY_REASONING
    return SavedResponse(
        question_id=id_,
        question_sha256=sha256,
        model=plan.model,
        sample=sample,
        seed=0,
        response=text if not failure else "",
        tokens=0,
        finish_reason="failed" if failure else finish,
        overlong=not failure and finish == "length",
        reasoned=bool(reasoning) and not failure,
        failure=failure,
    )


def _files(place: Path) -> list[Path]:
    """A file, or the Parquet and JSONL files of a folder."""
    if place.is_file():
        return [place]
    kinds = (".parquet", ".jsonl", ".ndjson")
    files = sorted(p for p in place.rglob("*") if p.suffix in kinds) if place.is_dir() else []
    if not files:
        raise UserError(f"{place} has no Parquet or JSON lines; download the data set there")
    return files


def _rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a file by field, with its place."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, columns)
        return
    for number, line in read_lines(path):
        place = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place} is not JSON ({error}); fix it, or remove it") from error
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object; write one object on each line")
        chosen = _choose(place, list(row), columns)
        yield place, {name: row[column] for name, column in chosen.items()}


def _parquet_rows(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            chosen = _choose(str(path), file.schema_arrow.names, columns)
            for batch in file.iter_batches(_BATCH, columns=list(chosen.values())):
                for row in batch.to_pylist():
                    number += 1
                    place = f"{path.name} row {number}"
                    yield place, {name: row[column] for name, column in chosen.items()}
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{path} cannot be read after row {number} ({error}); download it again"
        ) from error


def _choose(place: str, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each field: the user's choice, else the first of `COLUMNS` that exists."""
    chosen = {
        name: next((known for known in known_names if known in names), "")
        for name, known_names in COLUMNS.items()
    } | dict(columns)
    for name, column in chosen.items():
        if (name in columns or name in ("id", "response")) and column not in names:
            raise UserError(
                f"{place} has no column for {name}; name it with --columns, such as "
                f"{name}=NAME; its columns are {listed(names)}"
            )
    return {name: column for name, column in chosen.items() if column}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
