"""A model's answers: asked once, kept for good.

Answers are on the disk before they count, so that a killed evaluation goes on where it
was and asks nothing twice.
"""

import asyncio
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.prompts import Key, PromptSet, Question
from rilbench.jsonl_log import append_journal, read_journal
from rilbench.serving import ChatClient, Completion, RequestRefusedError, Sampling, failure

_REFUSED = 8
"""Requests refused at the start after which the server is held to refuse all."""


class AnswerFile:
    """Completions in JSON-lines files, one line per question; appended to, never rewritten.

    Of several lines of a question the last counts. Open it with `open_answers`.

    Args:
        paths: the file of each dataset; several may share one. They may hold more than is asked.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self.found: dict[Key, Completion] = {}
        for path in dict.fromkeys(paths.values()):
            self._load(path)

    def _load(self, path: Path) -> None:
        rows = read_journal(path)
        try:
            for row in rows:
                key = row.pop("dataset"), row.pop("question_id")
                self.found[key] = Completion(**row)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} holds no answers ({error}); move it away") from error

    def forget(self, questions: Sequence[Question]) -> None:
        """Have these asked anew, also where that is interrupted; of others nothing is lost."""
        known = [question.key for question in questions if question.key in self.found]
        self.append_all(dict.fromkeys(known, failure("asked anew")))

    def append(self, key: Key, completion: Completion) -> None:
        """Write one answer through to the disk."""
        self.append_all({key: completion})

    def append_all(self, completions: Mapping[Key, Completion]) -> None:
        """Write several answers through to the disk at once."""
        rows: dict[Path, list[dict[str, Any]]] = {}
        for (dataset, question), completion in completions.items():
            row = {"dataset": dataset, "question_id": question, **asdict(completion)}
            rows.setdefault(self.paths[dataset], []).append(row)
        for path, own in rows.items():
            append_journal(path, own)
        self.found.update(completions)

    def missing(self, questions: Sequence[Question]) -> list[Question]:
        """The questions that have no answer yet; those that cannot be asked are not among them."""
        return [
            question
            for question in questions
            if question.problem is None
            and (question.key not in self.found or self.found[question.key].failed)
        ]

    def note_problems(self, questions: Sequence[Question]) -> None:
        """Put a failure, in memory, where a question cannot be asked."""
        for question in questions:
            if question.problem is not None:
                self.found[question.key] = failure(question.problem)


@contextmanager
def open_answers(paths: Mapping[str, Path]) -> Iterator[AnswerFile]:
    """Open the answers' files, one for each dataset, for one process at a time.

    Raises:
        UserError: another process has one of them.
    """
    with ExitStack() as locks:
        for path in dict.fromkeys(paths.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = locks.enter_context(path.with_suffix(".lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another evaluation is writing {path}; wait for it, or stop it"
                ) from error
        yield AnswerFile(paths)


def ask(
    client: ChatClient,
    prompts: PromptSet,
    answers: AnswerFile,
    sampling: Callable[[Question], Sampling],
    on_answer: Callable[[int], None],
    pixels: Pixels = AS_IS,
) -> None:
    """Ask every question that has no answer yet; ``on_answer`` gets the number that are done.

    A request that the server refuses, such as a prompt too long for it, is a failure of that
    question; several, where there is no answer yet, are one of the server.

    Raises:
        UserError: the server refused all requests or stopped answering; what came is kept.
    """

    async def go() -> None:
        missing = answers.missing(prompts.questions)
        done = len(prompts.questions) - len(missing)
        requests = (
            (question.key, prompts.messages(question, pixels), sampling(question))
            for question in missing
        )
        # An earlier run's count: what it left may be nothing but questions that are refused.
        answered = any(not completion.failed for completion in answers.found.values())
        refused = 0
        async with client:
            async for key, completion in client.complete_all(requests, keep_refused=True):
                answered, refused = answered or not completion.failed, refused + completion.failed
                if refused >= _REFUSED and not answered:
                    raise RequestRefusedError(completion.finish_reason.removeprefix("error: "))
                answers.append(key, completion)
                done += 1
                on_answer(done)

    asyncio.run(go())
