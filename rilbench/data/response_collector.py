"""Ask a model's server for what a collection lacks.

While it is being collected, responses stand in a journal beside it, each durable before the next is
counted, so that a kill loses none: no response that is there is asked for again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rilbench.api_keys import NO_KEY
from rilbench.data.question_files import Question
from rilbench.data.response_store import (
    EMPTY,
    FAILED,
    Plan,
    SavedResponse,
    count_failures,
    seed_for,
    write_collection,
)
from rilbench.errors import UserError
from rilbench.jsonl_log import append_journal, read_journal
from rilbench.serving import ChatClient, Completion, Sampling, image_part, text_part

TRIES = 3
"""What brought no response is asked for this often, each time with another seed."""

Key = tuple[str, int]
"""Question id and sample."""


@dataclass(frozen=True)
class ModelServer:
    """Where a model is asked."""

    base_url: str
    name: str
    """Of the model there."""
    transformers: bool = False
    """It is ``transformers serve``."""
    api_key: str = NO_KEY
    timeout: float = 600.0
    """Seconds for one try."""


class _Queue:
    """What is to be asked, to which what brought nothing is added again while it is drawn from.

    `ChatClient.complete_all` draws as it has room, also after there was nothing for a while.
    """

    def __init__(self, plan: Plan, questions: Sequence[Question], keys: Sequence[Key]) -> None:
        self.plan = plan
        self.questions = {q.id: q for q in questions}
        self.waiting = deque((key, 0) for key in keys)
        self.attempts = dict.fromkeys(keys, 0)

    def __iter__(self) -> Iterator[tuple[Key, list[dict[str, Any]], Sampling]]:
        return self

    def __next__(self) -> tuple[Key, list[dict[str, Any]], Sampling]:
        if not self.waiting:
            raise StopIteration
        key, attempt = self.waiting.popleft()
        return key, _messages(self.questions[key[0]]), _sampling(self.plan, key, attempt)

    def again(self, key: Key) -> bool:
        """Ask once more, unless it was tried often enough."""
        self.attempts[key] += 1
        if self.attempts[key] == TRIES:
            return False
        self.waiting.append((key, self.attempts[key]))
        return True

    def seed(self, key: Key) -> int:
        """The seed of the last request for it."""
        return seed_for(self.plan, *key, min(self.attempts[key], TRIES - 1))


async def collect(
    plan: Plan,
    questions: Sequence[Question],
    folder: Path,
    server: ModelServer,
    on_answer: Callable[[int, int], None],
    *,
    max_failed: float = 0.0,
) -> Path:
    """Ask a server for what the journal lacks, then write the Parquet file.

    Args:
        plan: whom, how often and how.
        questions: what to ask.
        folder: of the collection.
        server: whom to ask.
        on_answer: called with (responses and failures so far, responses wanted).
        max_failed: share of the responses that may fail: stay empty, be refused, never come.

    Raises:
        UserError: the server fails, or more responses than ``max_failed`` do. The responses so far
            are kept; only what failed is asked again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = plan.journal(folder, plan.fingerprint(questions))
    found = {(r.question_id, r.sample): r for r in _read(journal)}
    wanted = [(q.id, i) for q in questions for i in range(plan.responses)]
    on_answer(len(found), len(wanted))
    queue = _Queue(plan, questions, [key for key in wanted if key not in found])
    failed: list[SavedResponse] = []
    async with ChatClient(
        server.base_url,
        server.name,
        transformers=server.transformers,
        api_key=server.api_key,
        concurrency=plan.concurrency,
        timeout=server.timeout,
    ) as client:
        async for key, completion in client.complete_all(queue, keep_refused=True):
            row = _row(plan, key, queue.seed(key), completion)
            if not row.failure:
                append_journal(journal, [asdict(row)])
            elif queue.again(key):
                continue
            else:
                failed.append(row)
                _check_failed(plan, failed, len(wanted), max_failed)
            found[key] = row
            on_answer(len(found), len(wanted))
    path = write_collection(plan, questions, folder, [found[key] for key in wanted])
    journal.unlink(missing_ok=True)
    return path


def _check_failed(
    plan: Plan, failed: Sequence[SavedResponse], wanted: int, max_failed: float
) -> None:
    if len(failed) <= max_failed * wanted:
        return
    kinds = ", ".join(f"{kind} {n}" for kind, n in count_failures(failed).items())
    raise UserError(
        f"{plan.model}: {len(failed)} of {wanted} responses failed ({kinds}), more than "
        f"collection.max_failed={max_failed} of them; the last, to question "
        f"{failed[-1].question_id!r}: {failed[-1].failure}; look at the server, then run again "
        "with --resume: what it answered is kept"
    )


def _row(plan: Plan, key: Key, seed: int, completion: Completion) -> SavedResponse:
    question, sample = key
    if completion.failed or not completion.text.strip():
        why = completion.finish_reason.removeprefix("error: ") if completion.failed else EMPTY
        return SavedResponse(question, plan.model, sample, seed, "", 0, FAILED, failure=why)
    return SavedResponse(
        question,
        plan.model,
        sample,
        seed,
        completion.text,
        completion.completion_tokens,
        completion.finish_reason,
        overlong=completion.finish_reason == "length",
    )


def _read(journal: Path) -> list[SavedResponse]:
    """What the journal holds; a last line that a kill cut short does not count."""
    return [SavedResponse(**row) for row in read_journal(journal)]


def _messages(question: Question) -> list[dict[str, Any]]:
    content = [
        text_part(part) if isinstance(part, str) else image_part(part) for part in question.parts
    ]
    return [{"role": "user", "content": content}]


def _sampling(plan: Plan, key: Key, attempt: int) -> Sampling:
    return Sampling(
        max_tokens=plan.max_tokens,
        temperature=plan.sampling.temperature,
        top_p=plan.sampling.top_p,
        top_k=plan.sampling.top_k,
        seed=seed_for(plan, *key, attempt),
        extra={"repetition_penalty": plan.sampling.repetition_penalty},
    )
