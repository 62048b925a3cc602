"""The saved collection: every response of a teacher (or the student) to every question.

One Parquet file for each model, with the columns ``question_id``, ``model``, ``sample``, ``seed``,
``response``, ``tokens`` and ``finish_reason``. While it is being collected, answers stand in a
journal beside it, each durable before the next is counted, so that a kill loses none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rilbench.errors import UserError
from rilbench.recipe import Sampling as RecipeSampling
from rilbench.serving import ChatClient, Sampling, image_part, text_part
from rilbench.teachers.questions import Question

_STORY = b"rilbench.story"

EMPTY_TRIES = 3
"""An empty response is asked again with another seed this often before it is an error."""


@dataclass(frozen=True)
class SavedResponse:
    """One saved response."""

    question_id: str
    model: str
    sample: int
    seed: int
    response: str
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class Plan:
    """What is to be collected from one model; ``weights`` is its fingerprint or its address."""

    model: str
    weights: str
    responses: int
    seed: int
    sampling: RecipeSampling
    max_tokens: int
    concurrency: int

    def fingerprint(self, questions: Sequence[Question]) -> str:
        """Sixteen hex digits over everything that the responses depend on."""
        story = {**asdict(self), "concurrency": 0}
        story["questions"] = [
            [q.id, q.question, [hashlib.sha256(i).hexdigest() for i in q.images]] for q in questions
        ]
        return hashlib.sha256(json.dumps(story, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        """Where the finished collection goes."""
        return folder / f"{self.model}.parquet"

    def journal(self, folder: Path, story: str) -> Path:
        """Where answers stand while it is being collected; of this story (fingerprint) only."""
        return folder / f"{self.model}.{story}.jsonl"


def seed_for(plan: Plan, question_id: str, sample: int, attempt: int = 0) -> int:
    """The seed of one request: 31 bits from what it is for."""
    text = f"{plan.seed}\x1f{plan.model}\x1f{question_id}\x1f{sample}\x1f{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


async def collect(
    plan: Plan,
    questions: Sequence[Question],
    folder: Path,
    server: tuple[str, str, bool],
    on_answer: Callable[[int, int], None],
) -> Path:
    """Ask a server for what the journal lacks, then write the Parquet file.

    Args:
        plan: whom, how often and how.
        questions: what to ask.
        folder: of the collection.
        server: base address, model name there, whether it is ``transformers serve``.
        on_answer: called with (answers so far, answers wanted).

    Raises:
        UserError: the server fails, or keeps answering a question with nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    story = plan.fingerprint(questions)
    journal_file = plan.journal(folder, story)
    done = _read_journal(journal_file)
    wanted = [(q, i) for q in questions for i in range(plan.responses)]
    open_requests = [(q, i) for q, i in wanted if (q.id, i) not in done]
    on_answer(len(wanted) - len(open_requests), len(wanted))
    base_url, name, is_transformers = server
    client = ChatClient(base_url, name, transformers=is_transformers, concurrency=plan.concurrency)
    async with client:
        with journal_file.open("ab") as journal:
            for attempt in range(EMPTY_TRIES):
                requests = [
                    ((q.id, i), _messages(q), _sampling(plan, q.id, i, attempt))
                    for q, i in open_requests
                ]
                async for (question_id, sample), completion in client.complete_all(requests):
                    if not completion.text.strip():
                        continue
                    saved = SavedResponse(
                        question_id,
                        plan.model,
                        sample,
                        seed_for(plan, question_id, sample, attempt),
                        completion.text,
                        completion.completion_tokens,
                        completion.finish_reason,
                    )
                    journal.write(json.dumps(asdict(saved)).encode() + b"\n")
                    journal.flush()
                    os.fsync(journal.fileno())
                    done[question_id, sample] = saved
                    on_answer(len(done), len(wanted))
                open_requests = [(q, i) for q, i in open_requests if (q.id, i) not in done]
    if open_requests:
        raise UserError(
            f"{plan.model} answered question {open_requests[0][0].id!r} with nothing "
            f"{EMPTY_TRIES} times; look at its server, or leave the question out"
        )
    path = _write(plan.file(folder), [done[q.id, i] for q, i in wanted], story)
    journal_file.unlink()
    return path


def read_collection(plan: Plan, questions: Sequence[Question], folder: Path) -> list[SavedResponse]:
    """Read a finished collection and check that it is the plan's and answers every question.

    Raises:
        UserError: the file cannot be read, was collected otherwise, or a response is missing or
            empty.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = plan.file(folder)
    try:
        table = pq.read_table(path)
        rows = [SavedResponse(**row) for row in table.to_pylist()]
    except (OSError, TypeError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it to collect again") from error
    story = (table.schema.metadata or {}).get(_STORY, b"").decode()
    if story != plan.fingerprint(questions):
        raise UserError(
            f"{path} was collected from other questions or with other settings; give another "
            "collection.folder, or delete the file to collect again"
        )
    found: dict[str, int] = {}
    for row in rows:
        if not (row.response or "").strip():
            raise UserError(
                f"{path}: response {row.sample} to question {row.question_id!r} is empty; "
                "delete the file and run again with --resume to collect it anew"
            )
        found[row.question_id] = found.get(row.question_id, 0) + 1
    short = [q.id for q in questions if found.get(q.id, 0) < plan.responses]
    if short:
        raise UserError(
            f"{path} lacks responses to {len(short)} of {len(questions)} questions (first: "
            f"{short[0]!r}); delete the file and run again with --resume to collect it anew"
        )
    return rows


def _messages(question: Question) -> list[dict[str, object]]:
    content = [
        text_part(part) if isinstance(part, str) else image_part(part) for part in question.parts
    ]
    return [{"role": "user", "content": content}]


def _sampling(plan: Plan, question_id: str, sample: int, attempt: int) -> Sampling:
    return Sampling(
        max_tokens=plan.max_tokens,
        temperature=plan.sampling.temperature,
        top_p=plan.sampling.top_p,
        top_k=plan.sampling.top_k,
        seed=seed_for(plan, question_id, sample, attempt),
        extra={"repetition_penalty": plan.sampling.repetition_penalty},
    )


def _read_journal(path: Path) -> dict[tuple[str, int], SavedResponse]:
    """What the journal holds; a last line that a kill cut short is cut off the file."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    rows = [SavedResponse(**json.loads(line)) for line in whole.split(b"\n") if line]
    return {(row.question_id, row.sample): row for row in rows}


def _write(path: Path, rows: Sequence[SavedResponse], story: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = path.with_suffix(".part")
    table = pa.Table.from_pylist([asdict(row) for row in rows])
    pq.write_table(table.replace_schema_metadata({_STORY: story}), part)
    part.replace(path)
    return path
