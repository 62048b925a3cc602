"""Collect a model's responses from its server.

Until a collection is finished, its responses are in a journal of JSON lines. Each is on the disk
before the next is counted, so a killed collection loses none and asks for none twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rilbench.api_keys import NO_KEY
from rilbench.data.question import Question
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
from rilbench.jsonl_log import append_jsonl, read_jsonl
from rilbench.serving import ChatClient, Completion, Sampling, image_part, text_part

TRIES = 3
"""Requests for one response, each with another seed, before it counts as failed."""

Key = tuple[str, int]
"""Question id and sample."""


@dataclass(frozen=True)
class ModelServer:
    """The server of a model."""

    base_url: str
    name: str
    """The model's name there."""
    transformers: bool = False
    """It is ``transformers serve``."""
    api_key: str = NO_KEY
    timeout: float = 600.0
    """Seconds for one try."""


class _RequestQueue:
    """The requests to send; one that failed is added again while the others are still being sent.

    `ChatClient.complete_all` takes requests as it has room, and asks again after the queue was
    empty for a while.
    """

    def __init__(self, plan: Plan, questions: Sequence[Question], keys: Sequence[Key]) -> None:
        self.plan = plan
        self.questions = {q.id: q for q in questions}
        self.waiting = deque(keys)
        self.attempts = dict.fromkeys(keys, 0)
        """Attempts of each that failed."""

    def __iter__(self) -> Iterator[tuple[Key, list[dict[str, Any]], Sampling]]:
        return self

    def __next__(self) -> tuple[Key, list[dict[str, Any]], Sampling]:
        if not self.waiting:
            raise StopIteration
        key = self.waiting.popleft()
        parts = [
            text_part(part) if isinstance(part, str) else image_part(part)
            for part in self.questions[key[0]].parts
        ]
        sampling = Sampling(
            max_tokens=self.plan.max_tokens,
            temperature=self.plan.sampling.temperature,
            top_p=self.plan.sampling.top_p,
            top_k=self.plan.sampling.top_k,
            seed=self.seed(key),
            extra={"repetition_penalty": self.plan.sampling.repetition_penalty},
        )
        return key, [{"role": "user", "content": parts}], sampling

    def seed(self, key: Key) -> int:
        """The seed of the current attempt."""
        return seed_for(self.plan, *key, self.attempts[key])

    def retry(self, key: Key) -> bool:
        """Add a failed request again; False after `TRIES` attempts."""
        if self.attempts[key] == TRIES - 1:
            return False
        self.attempts[key] += 1
        self.waiting.append(key)
        return True


async def collect(
    plan: Plan,
    questions: Sequence[Question],
    folder: Path,
    server: ModelServer,
    on_answer: Callable[[int, int], None],
    *,
    max_failed: float = 0.0,
) -> Path:
    """Request the responses that the journal lacks, then write the Parquet file.

    Args:
        plan: which model, how often and how.
        questions: the questions.
        folder: the collection's folder.
        server: the model's server.
        on_answer: called with (responses and failures so far, responses wanted).
        max_failed: share of the responses that may fail: stay empty, be refused, never arrive.

    Returns:
        The path of the Parquet file.

    Raises:
        UserError: the server fails, or more responses than ``max_failed`` do. The responses so far
            are kept; only what failed is requested again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = plan.journal(folder, questions)
    saved = [SavedResponse(**line) for line in read_jsonl(journal)]
    responses = {(r.question_id, r.sample): r for r in saved}
    wanted = [(q.id, i) for q in questions for i in range(plan.responses)]
    on_answer(len(responses), len(wanted))
    queue = _RequestQueue(plan, questions, [key for key in wanted if key not in responses])
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
            response = _saved_response(plan, key, queue.seed(key), completion)
            if not response.failure:
                append_jsonl(journal, [asdict(response)])
            elif queue.retry(key):
                continue
            else:
                failed.append(response)
                if len(failed) > max_failed * len(wanted):
                    raise _too_many_failed(plan, failed, len(wanted), max_failed)
            responses[key] = response
            on_answer(len(responses), len(wanted))
    path = write_collection(plan, questions, folder, [responses[key] for key in wanted])
    journal.unlink(missing_ok=True)
    return path


def _saved_response(plan: Plan, key: Key, seed: int, completion: Completion) -> SavedResponse:
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


def _too_many_failed(
    plan: Plan, failed: Sequence[SavedResponse], wanted: int, max_failed: float
) -> UserError:
    kinds = ", ".join(f"{kind} {n}" for kind, n in count_failures(failed).items())
    return UserError(
        f"{plan.model}: {len(failed)} of {wanted} responses failed ({kinds}), more than "
        f"collection.max_failed={max_failed} of them; the last, to question "
        f"{failed[-1].question_id!r}: {failed[-1].failure}; check the server, then run again with "
        "--resume: the finished responses are kept"
    )
