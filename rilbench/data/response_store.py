"""The saved collection: every response of a teacher (or the student) to every question.

One Parquet file for each model, in the order of the questions, with the columns

``question_id``, ``model``, ``sample``, ``seed``
    what was asked of whom, which of the responses to the question it is, and the last seed.
``response``, ``tokens``, ``finish_reason``, ``overlong``
    what came; null, 0 and ``failed`` where nothing did. ``tokens`` are the model's own, by its
    server's count. ``overlong``: it was cut at the longest response allowed.
``failure``
    why there is no response; empty where there is one.

The manifest stands in the file's metadata (``rilbench.manifest``), so that it travels with it, and
for people in ``MODEL.json`` beside it: which model, how it was sampled, a hash of the questions,
what came of it. Neither the student nor an address is in it: runs of any student may use it.
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
from rilbench.data.question_files import Question
from rilbench.errors import UserError

_STORY = b"rilbench.story"
_MANIFEST = b"rilbench.manifest"
FAILED = "failed"
"""The finish reason of a row without a response."""
EMPTY = "empty"
"""The failure of a model that answered with nothing; other failures are the server's words."""


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
    """What is to be collected from one model; ``weights`` is its fingerprint or its name there."""

    model: str
    weights: str
    responses: int
    seed: int
    sampling: RecipeSampling
    max_tokens: int
    concurrency: int
    source: str = ""
    """The model as the recipe names it; only for people and for other machines."""

    def fingerprint(self, questions: Sequence[Question]) -> str:
        """Sixteen hex digits over everything that the responses depend on."""
        story = {**asdict(self), "concurrency": 0}
        del story["source"]
        story["questions"] = _described(questions)
        return hashlib.sha256(json.dumps(story, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        """Where the finished collection goes."""
        return folder / f"{self.model}.parquet"

    def journal(self, folder: Path, story: str) -> Path:
        """Where answers stand while it is being collected; of this story (fingerprint) only."""
        return folder / f"{self.model}.{story}.jsonl"

    def asked(self, questions: Sequence[Question]) -> dict[str, Any]:
        """The part of the manifest that says what was asked of whom."""
        text = json.dumps(_described(questions)).encode()
        return {
            "model": self.model,
            "source": self.source,
            "weights": self.weights,
            "responses": self.responses,
            "seed": self.seed,
            "sampling": asdict(self.sampling),
            "max_tokens": self.max_tokens,
            "questions": len(questions),
            "questions_sha256": hashlib.sha256(text).hexdigest(),
        }


def _described(questions: Sequence[Question]) -> list[list[Any]]:
    return [
        [q.id, q.question, [hashlib.sha256(i).hexdigest() for i in q.images]] for q in questions
    ]


def seed_for(plan: Plan, question_id: str, sample: int, attempt: int = 0) -> int:
    """The seed of one request: 31 bits from what it is for."""
    text = f"{plan.seed}\x1f{plan.model}\x1f{question_id}\x1f{sample}\x1f{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def count_failures(rows: Sequence[SavedResponse]) -> dict[str, int]:
    """How many responses there are not, by kind: ``empty``, or ``error``."""
    kinds = Counter(EMPTY if r.failure == EMPTY else "error" for r in rows if r.failure)
    return dict(sorted(kinds.items()))


def write_collection(
    plan: Plan, questions: Sequence[Question], folder: Path, rows: Sequence[SavedResponse]
) -> Path:
    """Write the Parquet file, whole or not at all, and the manifest beside it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rilbench import __version__

    manifest = {
        "format": 1,
        "rilbench": __version__,
        **plan.asked(questions),
        "got": sum(not row.failure for row in rows),
        "failed": count_failures(rows),
        "overlong": sum(row.overlong for row in rows),
        "tokens": sum(row.tokens for row in rows),
    }
    kinds = {"str": pa.string(), "int": pa.int64(), "bool": pa.bool_()}
    schema = pa.schema([(f.name, kinds[str(f.type)]) for f in fields(SavedResponse)])
    table = pa.Table.from_pylist([_plain(row) for row in rows], schema)
    story = plan.fingerprint(questions)
    table = table.replace_schema_metadata({_STORY: story, _MANIFEST: json.dumps(manifest)})
    path = plan.file(folder)
    for file in (path.with_suffix(".json"), path):  # the one that counts at the end
        part = file.with_name(f".{file.name}.part")
        if file == path:
            pq.write_table(table, part)
        else:
            part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        part.replace(file)
    return path


def _plain(row: SavedResponse) -> dict[str, Any]:
    """As the file has it: what never came is null, not a text without letters."""
    return {**asdict(row), "response": None if row.failure else row.response}


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a collection's Parquet file; empty in one without.

    Raises:
        UserError: the file cannot be read.
    """
    found: dict[str, Any] = json.loads(_metadata(path).get(_MANIFEST, b"{}"))
    return found


def check_story(plan: Plan, questions: Sequence[Question], folder: Path) -> None:
    """Check, from its metadata alone, that a collection is what the plan asks for.

    Raises:
        UserError: it cannot be read, or naming what it was collected with instead.
    """
    path = plan.file(folder)
    found = _metadata(path)
    if found.get(_STORY, b"").decode() == plan.fingerprint(questions):
        return
    manifest, asked = json.loads(found.get(_MANIFEST, b"{}")), plan.asked(questions)
    differ = _differences(manifest, asked) or ["other questions or with other settings"]
    raise UserError(
        f"{path} was collected with {'; '.join(differ)}; set the recipe so, give another "
        "collection.folder, or delete the file to collect again"
    )


def read_collection(plan: Plan, questions: Sequence[Question], folder: Path) -> list[SavedResponse]:
    """Read the responses of a finished collection, after checking that it is the plan's.

    Every question is accounted for: each of its samples is a response or a named failure.

    Raises:
        UserError: the file cannot be read, was collected otherwise, or a row is missing or empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = plan.file(folder)
    check_story(plan, questions, folder)
    try:
        rows = [SavedResponse(**row) for row in pq.read_table(path).to_pylist()]
    except (OSError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to collect again") from error
    found: Counter[str] = Counter()
    for row in rows:
        if not row.failure and not (row.response or "").strip():
            raise UserError(
                f"{path}: response {row.sample} to question {row.question_id!r} is empty; "
                "delete the file and run again with --resume to collect it anew"
            )
        found[row.question_id] += 1
    short = [q.id for q in questions if found[q.id] < plan.responses]
    if short:
        raise UserError(
            f"{path} lacks responses to {len(short)} of {len(questions)} questions (first: "
            f"{short[0]!r}); delete the file and run again with --resume to collect it anew"
        )
    return [row for row in rows if not row.failure]


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to collect again") from error


def _differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What a manifest has otherwise than the recipe, in its words."""
    there, here = _flat(found), _flat(asked)
    other = there.get("questions_sha256") != here.pop("questions_sha256")
    counts = (there.get("questions"), here.pop("questions"))
    del here["source"]  # a name; the weights decide
    if not found:
        return []
    differ = [f"{k}={there.get(k)} (asked: {v})" for k, v in here.items() if there.get(k) != v]
    if other:
        differ.append(f"other questions ({counts[0]}, of the recipe's data {counts[1]})")
    return differ


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in values.items() if key != "sampling"}
    return flat | {f"sampling.{key}": v for key, v in values.get("sampling", {}).items()}
