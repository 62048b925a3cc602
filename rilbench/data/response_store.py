"""The collection: every saved response of a teacher (or the student) to every question.

Each model has one Parquet file, in the order of the questions, with the columns

``question_id``, ``model``, ``sample``, ``seed``
    the question, the model, which of the responses to the question this is, and its last seed.
``response``, ``tokens``, ``finish_reason``, ``overlong``
    the response, its tokens by the server's count, why it ended, and whether it was cut at the
    longest response allowed; a failure has null, 0 and ``failed``.
``failure``
    why there is no response; empty where there is one.

The file's metadata has the manifest (``rilbench.manifest``): which model, how it was sampled, a
hash of the questions, counts. ``MODEL.json`` repeats it for people. Neither the student nor an
address is in it, so that runs of any student may use the collection.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rilbench.config import Sampling as RecipeSampling
from rilbench.data.question import Question
from rilbench.errors import UserError

FAILED = "failed"
"""The finish reason of a row without a response."""
EMPTY = "empty"
"""The failure of a model that returned no text; other failures are the server's words."""

_FINGERPRINT = b"rilbench.fingerprint"
_MANIFEST = b"rilbench.manifest"


@dataclass(frozen=True)
class SavedResponse:
    """One saved response, or the failure to get one."""

    question_id: str
    model: str
    sample: int
    seed: int
    response: str
    tokens: int
    finish_reason: str
    overlong: bool = False
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

    def fingerprint(self, questions: Sequence[Question]) -> str:
        """16 hex digits over everything that the responses depend on."""
        identity = {**asdict(self), "concurrency": 0, "questions": _contents(questions)}
        del identity["source"]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        """The Parquet file of the finished collection."""
        return folder / f"{self.model}.parquet"

    def journal(self, folder: Path, questions: Sequence[Question]) -> Path:
        """The JSON lines that hold the responses until the collection is finished."""
        return folder / f"{self.model}.{self.fingerprint(questions)}.jsonl"

    def description(self, questions: Sequence[Question]) -> dict[str, Any]:
        """The part of the manifest that describes what was requested."""
        contents = json.dumps(_contents(questions)).encode()
        return {
            "model": self.model,
            "source": self.source,
            "weights": self.weights,
            "responses": self.responses,
            "seed": self.seed,
            "sampling": asdict(self.sampling),
            "max_tokens": self.max_tokens,
            "questions": len(questions),
            "questions_sha256": hashlib.sha256(contents).hexdigest(),
        }


def _contents(questions: Sequence[Question]) -> list[list[Any]]:
    return [
        [q.id, q.question, [hashlib.sha256(i).hexdigest() for i in q.images]] for q in questions
    ]


def seed_for(plan: Plan, question_id: str, sample: int, attempt: int = 0) -> int:
    """The seed of one request: 31 bits from the plan's seed, the model and the question."""
    text = f"{plan.seed}\x1f{plan.model}\x1f{question_id}\x1f{sample}\x1f{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def count_failures(responses: Sequence[SavedResponse]) -> dict[str, int]:
    """The number of failures by kind: ``empty`` or ``error``."""
    kinds = Counter(EMPTY if r.failure == EMPTY else "error" for r in responses if r.failure)
    return dict(sorted(kinds.items()))


def write_collection(
    plan: Plan, questions: Sequence[Question], folder: Path, responses: Sequence[SavedResponse]
) -> Path:
    """Write the Parquet file and ``MODEL.json``; return the Parquet file's path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rilbench import __version__

    manifest = {
        "format": 1,
        "rilbench": __version__,
        **plan.description(questions),
        "got": sum(not r.failure for r in responses),
        "failed": count_failures(responses),
        "overlong": sum(r.overlong for r in responses),
        "tokens": sum(r.tokens for r in responses),
    }
    types = {"str": pa.string(), "int": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(f.name, types[str(f.type)]) for f in fields(SavedResponse)])
    rows = [{**asdict(r), "response": None if r.failure else r.response} for r in responses]
    metadata = {_FINGERPRINT: plan.fingerprint(questions), _MANIFEST: json.dumps(manifest)}
    table = pa.Table.from_pylist(rows, schema).replace_schema_metadata(metadata)
    path = plan.file(folder)
    for file in (path.with_suffix(".json"), path):  # the Parquet file last: it means "finished"
        part = file.with_name(f".{file.name}.part")
        if file == path:
            pq.write_table(table, part)
        else:
            part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        part.replace(file)
    return path


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a collection's Parquet file; empty if the file has none.

    Raises:
        UserError: the file cannot be read.
    """
    manifest: dict[str, Any] = json.loads(_metadata(path).get(_MANIFEST, b"{}"))
    return manifest


def check_collection_settings(plan: Plan, questions: Sequence[Question], folder: Path) -> None:
    """Check, from its metadata alone, that a collection is the one that the plan describes.

    Raises:
        UserError: it cannot be read, or was collected with other settings, which are named.
    """
    path = plan.file(folder)
    metadata = _metadata(path)
    if metadata.get(_FINGERPRINT, b"").decode() == plan.fingerprint(questions):
        return
    saved = _flat(json.loads(metadata.get(_MANIFEST, b"{}")))
    wanted = _flat(plan.description(questions))
    del wanted["source"]  # only a name; the weights decide
    differences = [
        f"{key}={saved[key]} (asked: {value})"
        for key, value in wanted.items()
        if not key.startswith("questions") and key in saved and saved[key] != value
    ]
    if saved and saved.get("questions_sha256") != wanted["questions_sha256"]:
        counts = f"{saved.get('questions')}, of the recipe's data {wanted['questions']}"
        differences.append(f"other questions ({counts})")
    raise UserError(
        f"{path} was collected with {'; '.join(differences) or 'other settings'}; change the "
        "recipe accordingly, give another collection.folder, or delete the file to collect again"
    )


def read_collection(plan: Plan, questions: Sequence[Question], folder: Path) -> list[SavedResponse]:
    """Read the responses of a finished collection, without its failures.

    Raises:
        UserError: the file cannot be read, was collected with other settings, or does not have a
            response or a failure for each sample of each question.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = plan.file(folder)
    check_collection_settings(plan, questions, folder)
    try:
        responses = [SavedResponse(**row) for row in pq.read_table(path).to_pylist()]
    except (OSError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to collect again") from error
    remedy = "delete the file and run again with --resume to collect it again"
    counts: Counter[str] = Counter()
    for saved in responses:
        if not saved.failure and not (saved.response or "").strip():
            raise UserError(
                f"{path}: response {saved.sample} to question {saved.question_id!r} is empty; "
                + remedy
            )
        counts[saved.question_id] += 1
    short = [q.id for q in questions if counts[q.id] < plan.responses]
    if short:
        raise UserError(
            f"{path} lacks responses to {len(short)} of {len(questions)} questions (first: "
            f"{short[0]!r}); {remedy}"
        )
    return [saved for saved in responses if not saved.failure]


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to collect again") from error


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    sampling = {f"sampling.{key}": value for key, value in manifest.get("sampling", {}).items()}
    return {key: value for key, value in manifest.items() if key != "sampling"} | sampling
