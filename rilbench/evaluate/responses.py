"""A model's responses to benchmark questions, in files that survive a kill.

A response counts only once it is on the disk, so a killed evaluation resumes without asking any
question twice.
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
from rilbench.evaluate.prompts import BenchmarkQuestion, Key, PromptSet
from rilbench.jsonl_log import BatchedWriter, append_jsonl, read_jsonl
from rilbench.ledger.records import utc_now
from rilbench.serving import ChatClient, Completion, RequestRefusedError, Sampling, failure

_REFUSED = 8
"""Number of requests refused at the start after which we assume that the server refuses all."""


class AnswerFile:
    """Completions in JSON-lines files, one line per question; appended to, never rewritten.

    A question's last line counts, but a failure takes no response away: that one is asked for again
    and stays until its successor has come. Open it with `open_answers`.

    Args:
        paths: the file of each data set; several may share one. They may hold other questions, too.

    Attributes:
        found: the completions by data set and question id.
        dates: when they came, in UTC.
        again: the questions with a response that is asked for again.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths
        self.found: dict[Key, Completion] = {}
        self.dates: dict[Key, str] = {}
        self.again: set[Key] = set()
        for path in dict.fromkeys(paths.values()):
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            for line in read_jsonl(path):
                key = line.pop("dataset"), line.pop("question_id")
                date = line.pop("at", "")  # Older files have none.
                completion = Completion(**line)
                if completion.failed and key in self.found and not self.found[key].failed:
                    self.again.add(key)
                    continue
                self.again.discard(key)
                self.found[key], self.dates[key] = completion, date
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} holds no responses ({error}); move it away") from error

    def forget(self, questions: Sequence[BenchmarkQuestion]) -> None:
        """Mark these as to be asked again, on the disk, so that it survives an interruption.

        A response stays until the next one has come: it may have been paid for.
        """
        known = [
            question.key
            for question in questions
            if question.key in self.found and not self.found[question.key].failed
        ]
        self._write(dict.fromkeys(known, failure("asked again")))
        self.again.update(known)

    def keep(self) -> None:
        """Take the responses that are marked as to be asked again for this evaluation as well."""
        self.again.clear()

    def append_all(self, completions: Mapping[Key, Completion]) -> None:
        """Write responses through to the disk at once."""
        now = self._write(completions)
        self.found.update(completions)
        self.dates.update(dict.fromkeys(completions, now))
        self.again.difference_update(completions)

    def _write(self, completions: Mapping[Key, Completion]) -> str:
        """Append lines and return their date."""
        lines: dict[Path, list[dict[str, Any]]] = {}
        now = utc_now()
        for (dataset, question), completion in completions.items():
            line = {"dataset": dataset, "question_id": question, "at": now, **asdict(completion)}
            lines.setdefault(self.paths[dataset], []).append(line)
        for path, added in lines.items():
            append_jsonl(path, added)
        return now

    def missing(self, questions: Sequence[BenchmarkQuestion]) -> list[BenchmarkQuestion]:
        """Return the questions without a response, except those that cannot be asked."""
        return [
            question
            for question in questions
            if question.problem is None
            and (
                question.key not in self.found
                or question.key in self.again
                or self.found[question.key].failed
            )
        ]

    def note_problems(self, questions: Sequence[BenchmarkQuestion]) -> None:
        """Enter a failure, in memory only, for every question that cannot be asked."""
        for question in questions:
            if question.problem is not None:
                self.found[question.key] = failure(question.problem)


@contextmanager
def open_answers(paths: Mapping[str, Path]) -> Iterator[AnswerFile]:
    """Open the files of responses, one for each data set, for one process at a time.

    Raises:
        UserError: another process writes to one of them, or it holds something else.
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
    sampling: Callable[[BenchmarkQuestion], Sampling],
    on_answer: Callable[[int], None],
    pixels: Pixels = AS_IS,
) -> None:
    """Ask a server every question that has no response yet.

    A refused request, such as too long a prompt, is a failure of that question. Eight refusals
    before the first response are a failure of the server.

    Args:
        client: of the server.
        prompts: all questions.
        answers: takes the responses.
        sampling: returns a question's sampling.
        on_answer: called with the number of questions that have a response.
        pixels: size limits of images.

    Raises:
        UserError: the server refused all requests or stopped responding; responses are kept.
    """

    def write(some: list[tuple[Key, Completion]]) -> None:
        answers.append_all(dict(some))

    async def go() -> None:
        missing = answers.missing(prompts.questions)
        done = len(prompts.questions) - len(missing)
        requests = (
            (question.key, prompts.messages(question, pixels), sampling(question))
            for question in missing
        )
        # An earlier run's responses count: it may have left only questions that are refused.
        answered = any(
            not completion.failed and key not in answers.again
            for key, completion in answers.found.items()
        )
        refused = 0
        async with client, BatchedWriter(write) as writer:
            async for key, (completion, *_) in client.complete_all(requests, keep_refused=True):
                answered, refused = answered or not completion.failed, refused + completion.failed
                if refused >= _REFUSED and not answered:
                    raise RequestRefusedError(completion.finish_reason.removeprefix("error: "))
                writer.add((key, completion))
                done += 1
                on_answer(done)

    asyncio.run(go())
