"""The collection: every saved response of a teacher (or the student) to every question.

Each model has one Parquet file with the columns

``question_id``, ``question_sha256``, ``model``, ``sample``, ``seed``
    the question and a hash of what the model saw of it (text and pictures, not the answer), the
    model, which of the responses to the question this is, and its last seed (0: the request
    had none).
``response``, ``tokens``, ``finish_reason``, ``overlong``, ``reasoned``
    the response, its tokens by the server's count, why it ended, whether it was cut at the longest
    response allowed, and whether the model wrote its reasoning down before it answered; a failure
    has null, 0 and ``failed``.
``failure``
    why there is no response; empty where there is one.

A run finds its questions by id and hash. So a file serves any list of questions: what it lacks is
collected and added, and responses to questions that are not asked stay for others.

The file's metadata has the manifest (``rilbench.manifest``): which model, how it was sampled,
counts. ``MODEL.json`` repeats it for people. A teacher's names neither the student nor an address,
so that runs of any student may use it; the student's own responses are in a file for each student.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rilbench.config import Sampling as RecipeSampling
from rilbench.data.question import Question
from rilbench.data.row_files import RowWriter
from rilbench.errors import UserError
from rilbench.paths import public_name, whole_file
from rilbench.serving.reply import CAUSES

FAILED = "failed"
"""The finish reason of a row without a response."""
CUT = "cut by the server"
"""The failure of a response that the server cut before the longest that was allowed."""
KINDS = (CUT, *CAUSES)
"""The failures that are counted by kind; others are the server's words."""

_FINGERPRINT = "rilbench.fingerprint"
_MANIFEST = "rilbench.manifest"
_BATCH = 4096
"""Rows read at a time."""

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Names that servers give to the tokens of the longest response."""

Key = tuple[str, int]
"""Question id and sample."""


@dataclass(frozen=True)
class SavedResponse:
    """One saved response, or the failure to get one."""

    question_id: str
    question_sha256: str
    model: str
    sample: int
    seed: int
    response: str
    tokens: int
    finish_reason: str
    overlong: bool = False
    reasoned: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Plan:
    """What to collect from one model."""

    model: str
    """The teacher's name in the recipe, or the student."""
    weights: str
    """The model's fingerprint, or its name on a server."""
    responses: int
    """Responses per question."""
    seed: int
    sampling: RecipeSampling
    max_tokens: int
    """Tokens of the longest response."""
    concurrency: int
    source: str = ""
    """The model's folder or hub name in the recipe; information only."""
    keep_reasoning: bool = False
    """Whether the reasoning of a thinking model is a part of its response."""
    fields: Mapping[str, Any] | None = None
    """Fields of a request instead of `sampling`, as the model's server takes them."""
    saved_as: str = ""
    """`name`, where it is not the model's."""

    @property
    def name(self) -> str:
        """Name of its files, and of its entry in ``cost.json``."""
        return self.saved_as or self.model

    @property
    def per_request(self) -> int:
        """Responses of one request."""
        return int((self.fields or {}).get("n") or 1)

    @property
    def limit(self) -> int:
        """Tokens after which the server ends a response; 0: the request does not say."""
        given = [self.fields[name] for name in LIMITS if name in self.fields] if self.fields else []
        return int(given[0] or 0) if given else self.max_tokens

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that one response depends on but the question and the sample."""
        own = None if self.fields is None else {k: v for k, v in self.fields.items() if k != "n"}
        return {
            "model": self.model,
            "weights": self.weights,
            "seed": self.seed,
            "sampling": asdict(self.sampling) if own is None else own,
            "max_tokens": self.max_tokens,
            "keep_reasoning": self.keep_reasoning,
        }

    @property
    def fingerprint(self) -> str:
        """16 hex digits over `settings`."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        """The Parquet file of the collection."""
        return folder / f"{self.name}.parquet"

    def journal(self, folder: Path) -> Path:
        """The JSON lines that hold new responses until all that were asked for are there."""
        return folder / f"{self.name}.{self.fingerprint}.jsonl"


def seed_for(plan: Plan, question_id: str, sample: int, attempt: int = 0) -> int:
    """The seed of one request: 31 bits from the plan's seed, the model and the question."""
    text = f"{plan.seed}\x1f{plan.model}\x1f{question_id}\x1f{sample}\x1f{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def count_failures(failures: Iterable[str]) -> dict[str, int]:
    """The number of failures by kind: one of `KINDS`, or ``error``."""
    kinds = Counter(failure if failure in KINDS else "error" for failure in failures)
    return dict(sorted(kinds.items()))


@dataclass(frozen=True)
class ResponseIndex:
    """Which responses to a run's questions a collection has; the texts stay in the file.

    The arrays have one entry for each response or failure, in the file's order.
    """

    questions: Sequence[Question]
    responses: int
    """Responses wanted per question."""
    question: NDArray[np.int64]
    """Place among the questions."""
    sample: NDArray[np.int64]
    row: NDArray[np.int64]
    """Row of the file."""
    failure: tuple[str, ...]
    """Why there is no response, or ""."""
    reasoned: int = 0
    """Responses before which the model wrote its reasoning down."""
    imported: bool = False
    """They were not collected: what is not there cannot be asked for."""

    @property
    def total(self) -> int:
        """Responses that are wanted."""
        return len(self.questions) * self.responses

    @property
    def failed(self) -> dict[str, int]:
        """The number of failures by kind."""
        return count_failures(filter(None, self.failure))

    def failed_more_than(self, share: float) -> bool:
        """Whether more than this share of the responses are failures."""
        return sum(self.failed.values()) > share * self.total

    def missing(self, max_failed: float) -> list[Key]:
        """What to ask for: what was never asked, and all failures if they are too many.

        Args:
            max_failed: the share of the responses that may be failures.
        """
        if self.imported:
            return []
        again = self.failed_more_than(max_failed)
        settled = np.array([not (failure and again) for failure in self.failure], dtype=bool)
        there = np.zeros((len(self.questions), self.responses), dtype=bool)
        there[self.question[settled], self.sample[settled]] = True
        return [(self.questions[i].id, int(sample)) for i, sample in np.argwhere(~there)]

    def rows_by_question(self, most: int) -> list[NDArray[np.int64]]:
        """For each question the rows of its first ``most`` responses, in the samples' order."""
        whole = np.array([not failure for failure in self.failure], dtype=bool)
        question, sample, row = self.question[whole], self.sample[whole], self.row[whole]
        order = np.lexsort((sample, question))
        ends = np.searchsorted(question[order], np.arange(1, len(self.questions)))
        return [rows[:most] for rows in np.split(row[order], ends)]


def index_responses(plan: Plan, questions: Sequence[Question], folder: Path) -> ResponseIndex:
    """Find the responses to questions in a collection; none if there is no file yet.

    Raises:
        UserError: the file cannot be read, or was collected with other settings, which are named.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path, none = plan.file(folder), np.empty(0, dtype=np.int64)
    if not path.exists() or not questions:
        return ResponseIndex(questions, plan.responses, none, none, none, ())
    _check_settings(plan, path)
    names = ["question_id", "question_sha256", "sample", "failure", "reasoned"]
    try:
        table = pq.read_table(path, columns=names)
        place = pc.index_in(table["question_id"], pa.array([q.id for q in questions]))
        known = place.fill_null(0).to_numpy()
        hashes = table["question_sha256"].to_numpy()
        asked = np.array([q.sha256 for q in questions], dtype=object)[known] == hashes
        sample = table["sample"].to_numpy()
        mine = place.is_valid().to_numpy() & asked & (sample < plan.responses)
    except (OSError, LookupError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    row = np.flatnonzero(mine)
    # The last of each: a kill in the moment after the file was written may have added some twice.
    _, from_end = np.unique((known * plan.responses + sample)[row][::-1], return_index=True)
    row = np.sort(row[::-1][from_end])
    return ResponseIndex(
        questions,
        plan.responses,
        known[row].astype(np.int64),
        sample[row],
        row,
        tuple(table["failure"].take(row).to_pylist()),
        int(table["reasoned"].to_numpy()[row].sum()),
        "imported" in read_manifest(path),
    )


def read_responses(path: Path, rows: NDArray[np.int64]) -> Iterator[Any]:
    """Yield the texts of some rows of a collection's file, in the file's order, as Arrow arrays.

    Args:
        path: the Parquet file, read once, a few rows at a time.
        rows: of `ResponseIndex`, sorted.

    Raises:
        UserError: the file cannot be read, or one of the responses is empty.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    start = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH, columns=["response"]):
                first, last = np.searchsorted(rows, (start, start + batch.num_rows))
                texts = batch.column(0).take(pa.array(rows[first:last] - start))
                empty = pc.equal(pc.utf8_trim_whitespace(texts.fill_null("")), "").to_numpy(False)
                if empty.any():
                    raise UserError(
                        f"{path}: the response in row {rows[first + empty.argmax()]} is empty; "
                        "delete the file and run again with --resume to collect it again"
                    )
                yield texts
                start += batch.num_rows
    except (OSError, LookupError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def add_responses(
    plan: Plan,
    folder: Path,
    new: Iterable[SavedResponse],
    replaced: set[Key],
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Add responses to a collection's file, and write ``MODEL.json``; return the file's path.

    Args:
        plan: what was collected; the file's settings, if it exists, are the same.
        folder: the collection's.
        new: the responses, a few in memory at a time.
        replaced: failures in the file in whose place new responses come.
        origin: further entries of the manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"str": pa.string(), "int": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(f.name, types[str(f.type)]) for f in fields(SavedResponse)])
    path, counts = plan.file(folder), _Counts()
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        part = stack.enter_context(whole_file(path))
        note = stack.enter_context(whole_file(path.with_suffix(".json")))
        writer = RowWriter(part, schema)
        if path.exists():
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(_BATCH):
                    kept = _without(batch, replaced)
                    counts.add(kept)
                    writer.write_batch(kept.select(schema.names))
        for response in new:
            writer.write({**vars(response), "response": response.response or None})
            counts.add_one(response)
        manifest = {**counts.manifest(plan), **(origin or {})}
        writer.close({_FINGERPRINT: plan.fingerprint, _MANIFEST: json.dumps(manifest)})
        note.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return path


def _without(batch: Any, replaced: set[Key]) -> Any:
    """A record batch without the failures that are replaced."""
    import pyarrow as pa

    failures = np.flatnonzero(np.array(batch.column("failure").to_pylist()) != "")
    keep = np.ones(batch.num_rows, dtype=bool)
    for row in failures:
        key = (batch.column("question_id")[row].as_py(), batch.column("sample")[row].as_py())
        keep[row] = key not in replaced
    return batch.filter(pa.array(keep))


class _Counts:
    """What the manifest says of all rows of a file."""

    def __init__(self) -> None:
        self.questions: set[tuple[str, str]] = set()
        self.failed: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()

    def add(self, batch: Any) -> None:
        names = ("question_id", "question_sha256", "failure", "overlong", "reasoned", "tokens")
        ids, hashes, failures, *numbers = (batch.column(name).to_pylist() for name in names)
        self.questions.update(zip(ids, hashes, strict=True))
        self.failed.update(count_failures(filter(None, failures)))
        self.sums["got"] += failures.count("")
        for name, values in zip(names[3:], numbers, strict=True):
            self.sums[name] += sum(values)

    def add_one(self, response: SavedResponse) -> None:
        self.questions.add((response.question_id, response.question_sha256))
        self.failed.update(count_failures(filter(None, [response.failure])))
        self.sums["got"] += not response.failure
        for name in ("overlong", "reasoned", "tokens"):
            self.sums[name] += getattr(response, name)

    def manifest(self, plan: Plan) -> dict[str, Any]:
        from rilbench import __version__

        return {
            "format": 2,
            "rilbench": __version__,
            **plan.settings,
            "source": public_name(plan.source),
            "questions": len(self.questions),
            "failed": dict(sorted(self.failed.items())),
            **{name: self.sums[name] for name in ("got", "overlong", "reasoned", "tokens")},
        }


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a collection's Parquet file; empty if the file has none.

    Raises:
        UserError: the file cannot be read.
    """
    manifest: dict[str, Any] = json.loads(_metadata(path).get(_MANIFEST.encode(), b"{}"))
    return manifest


def _check_settings(plan: Plan, path: Path) -> None:
    """Refuse, from its metadata alone, a file that was collected with other settings."""
    manifest = read_manifest(path)
    if "imported" in manifest:  # collected by others, of whose settings nothing is known
        return
    if _metadata(path).get(_FINGERPRINT.encode(), b"").decode() == plan.fingerprint:
        return
    saved, wanted = _flat(manifest), _flat(plan.settings)
    differences = [
        f"{key}={saved[key]} (asked: {value})"
        for key, value in wanted.items()
        if key in saved and saved[key] != value
    ]
    raise UserError(
        f"{path} was collected with {'; '.join(differences) or 'another version of rilbench'}; "
        "change the recipe accordingly, give another collection.folder, or delete the file to "
        "collect again"
    )


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} cannot be read ({error}); delete it to collect again")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    sampling = {f"sampling.{key}": value for key, value in settings.get("sampling", {}).items()}
    return {key: value for key, value in settings.items() if key != "sampling"} | sampling
