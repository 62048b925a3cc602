"""Collect a model's responses from its server.

Until a collection is finished, its responses are in a journal of JSON lines. Each is on the disk
before the next is counted, so a killed collection loses none and asks for none twice.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rilbench.api_keys import NO_KEY
from rilbench.data.question import Question
from rilbench.data.response_store import (
    CUT,
    FAILED,
    LIMITS,
    Key,
    Plan,
    SavedResponse,
    add_responses,
    count_failures,
    index_responses,
    seed_for,
)
from rilbench.errors import UserError
from rilbench.jsonl_log import BatchedWriter, append_jsonl, iter_jsonl
from rilbench.serving import ChatClient, Completion, Message, Sampling, image_part, text_part
from rilbench.serving import reply as replies
from rilbench.serving.reply import ONLY_REASONING

TRIES = 3
"""Requests for one response, each with another seed, before it counts as failed."""


@dataclass(frozen=True)
class ModelServer:
    """The server of a model."""

    base_url: str | Sequence[str]
    """Its address, or those of several that serve the model."""
    name: str
    """The model's name there."""
    transformers: bool = False
    """It is ``transformers serve``."""
    api_key: str | Sequence[str] = NO_KEY
    """Of its address, or of each."""
    timeout: float = 600.0
    """Seconds for one try."""
    concurrency: int | None = None
    """Requests in flight; None for the plan's."""


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

    def __iter__(self) -> Iterator[tuple[tuple[Key, ...], list[Message], Sampling]]:
        return self

    def __next__(self) -> tuple[tuple[Key, ...], list[Message], Sampling]:
        if not self.waiting:
            raise StopIteration
        keys = [self.waiting.popleft()]
        while (
            len(keys) < self.plan.per_request and self.waiting and self.waiting[0][0] == keys[0][0]
        ):
            keys.append(self.waiting.popleft())
        return tuple(keys), *request(
            self.plan, self.questions[keys[0][0]], self.seed(keys[0]), len(keys)
        )

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


def request(
    plan: Plan, question: Question, seed: int, number: int
) -> tuple[list[Message], Sampling]:
    """Return the messages and the sampling of a request for some responses to a question."""
    parts = [
        text_part(part) if isinstance(part, str) else image_part(part) for part in question.parts
    ]
    fields = None
    if plan.fields is not None:
        # Nothing but what is asked for: API servers refuse the fields that they do not know.
        named = any(name in plan.fields for name in LIMITS)
        fields = {} if named else {"max_tokens": plan.max_tokens}
        fields |= {name: value for name, value in plan.fields.items() if value is not None}
        fields |= {"seed": seed} if "seed" in fields else {}
        fields |= {"n": number} if "n" in fields else {}
    sampling = Sampling(
        max_tokens=plan.max_tokens,
        temperature=plan.sampling.temperature,
        top_p=plan.sampling.top_p,
        top_k=plan.sampling.top_k or -1,
        seed=seed,
        extra={"repetition_penalty": plan.sampling.repetition_penalty},
        fields=fields,
    )
    return [{"role": "user", "content": parts}], sampling


async def collect(
    plan: Plan,
    questions: Sequence[Question],
    folder: Path,
    server: ModelServer,
    on_answer: Callable[[int, int], None],
    *,
    max_failed: float = 0.0,
) -> Path:
    """Request what the collection's file and the journal lack, then add it to the file.

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
    index = index_responses(plan, questions, folder)
    missing = index.missing(max_failed)
    new = _NewResponses(plan, questions, folder, missing)
    total, done = index.total, index.total - len(missing)
    allowed = max_failed * total
    if not index.failed_more_than(max_failed):
        allowed -= sum(index.failed.values())
    done += len(new)
    on_answer(done, total)
    queue = _RequestQueue(plan, questions, [key for key in missing if key not in new.lines])
    client = ChatClient(
        server.base_url,
        server.name,
        transformers=server.transformers,
        api_key=server.api_key,
        concurrency=server.concurrency or plan.concurrency,
        timeout=server.timeout,
    )
    async with client, BatchedWriter(new.write) as writer:
        async for keys, completions in client.complete_all(queue, keep_refused=True):
            if completions[0].failed:
                completions = completions[:1] * len(keys)
            # What a server did not return of several is asked for again.
            queue.waiting.extendleft(reversed(keys[len(completions) :]))
            question, seed = queue.questions[keys[0][0]], queue.seed(keys[0])
            for key, completion in zip(keys, completions, strict=False):
                response = _saved_response(plan, question, key, seed, completion)
                if response.failure and queue.retry(key):
                    continue
                if response.failure:
                    new.failures[key] = response
                    if len(new.failures) > allowed:
                        failed = list(new.failures.values())
                        raise _too_many_failed(plan, failed, total, max_failed)
                else:
                    writer.add(response)
                done += 1
                on_answer(done, total)
    path = add_responses(plan, folder, new.in_order(missing), set(missing))
    new.journal.unlink(missing_ok=True)
    return path


class _NewResponses:
    """Responses that are not in the file yet: in the journal, with only their places in memory."""

    def __init__(
        self, plan: Plan, questions: Sequence[Question], folder: Path, missing: Sequence[Key]
    ) -> None:
        self.journal = plan.journal(folder)
        wanted, hashes = set(missing), {q.id: q.sha256 for q in questions}
        self.lines: dict[Key, int] = {}
        """The byte of the journal at which a response's line starts."""
        self.failures: dict[Key, SavedResponse] = {}
        self.unused: list[int] = []
        """The same of responses to what is no longer asked: they go into the file too."""
        for start, line in iter_jsonl(self.journal):
            key = (line["question_id"], line["sample"])
            if key in wanted and line["question_sha256"] == hashes[key[0]]:
                self.lines[key] = start
            else:
                self.unused.append(start)

    def __len__(self) -> int:
        return len(self.lines) + len(self.failures)

    def write(self, responses: Sequence[SavedResponse]) -> None:
        """Append them to the journal."""
        starts = append_jsonl(self.journal, map(asdict, responses))
        for response, start in zip(responses, starts, strict=True):
            self.lines[response.question_id, response.sample] = start

    def in_order(self, keys: Iterable[Key]) -> Iterator[SavedResponse]:
        """All of them, one in memory at a time."""
        self.journal.touch()
        with self.journal.open("rb") as file:

            def line_at(start: int) -> SavedResponse:
                file.seek(start)
                return SavedResponse(**json.loads(file.readline()))

            for key in keys:
                yield self.failures.get(key) or line_at(self.lines[key])
            yield from map(line_at, self.unused)


def _saved_response(
    plan: Plan, question: Question, key: Key, seed: int, completion: Completion
) -> SavedResponse:
    """The response that a completion is, or why it is none."""
    reasoning, text = completion.thoughts, completion.answer
    failure = _why_not_whole(plan, completion)
    if plan.keep_reasoning and reasoning:
        text = f"<think>\n{reasoning}\n</think>\n\n{text}"
    return SavedResponse(
        question_id=question.id,
        question_sha256=question.sha256,
        model=plan.model,
        sample=key[1],
        seed=seed if plan.fields is None or "seed" in plan.fields else 0,
        response="" if failure else text,
        tokens=0 if failure else completion.completion_tokens,
        finish_reason=FAILED if failure else completion.finish_reason,
        overlong=not failure and completion.finish_reason == "length",
        reasoned=bool(reasoning) and not failure,
        failure=failure,
    )


def _why_not_whole(plan: Plan, completion: Completion) -> str:
    """Why a completion is no whole response; "" if it is one."""
    reason, tokens = completion.finish_reason, completion.completion_tokens
    if completion.failed:
        return reason.removeprefix("error: ")
    if completion.no_answer == replies.CUT:
        return replies.EMPTY if completion.is_cut else CUT
    if completion.no_answer or not completion.answer.strip():
        return completion.no_answer or replies.EMPTY
    # Its own limit, such as the length of its context; at ours it is `overlong`. Of several
    # responses only the sum of their tokens is known.
    return CUT if reason == "length" and 0 < tokens < plan.limit and plan.per_request == 1 else ""


def _too_many_failed(
    plan: Plan, failed: Sequence[SavedResponse], wanted: int, max_failed: float
) -> UserError:
    kinds = count_failures(response.failure for response in failed)
    counted = ", ".join(f"{kind} {n}" for kind, n in kinds.items())
    hints = {
        ONLY_REASONING: (
            f"raise data.max_response_tokens, or max_tokens in collection.fields.{plan.model}: the "
            "model was still reasoning at its end"
        ),
        CUT: "give the server a longer context (vllm serve --max-model-len)",
    }
    most = max(kinds, key=lambda kind: kinds[kind])
    return UserError(
        f"{plan.model}: {len(failed)} of {wanted} responses failed ({counted}), more than "
        f"collection.max_failed={max_failed} of them; the last, to question "
        f"{failed[-1].question_id!r}: {failed[-1].failure}; {hints.get(most, 'check the server')}, "
        "then run again with --resume: the finished responses are kept"
    )
