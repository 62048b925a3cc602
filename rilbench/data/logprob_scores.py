"""How likely the student finds each question's reference answer, and how long both are.

The score of a question is the mean over the answer's tokens of log π(token | picture, question,
answer so far), in nats, of the student as it is before training. Scores stand in a journal, each
batch written through to the disk, so that a killed scoring goes on where it was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.data.images import open_picture
from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.evaluate.batch_engine import OfflineModel
from rilbench.jsonl_log import append_journal, read_journal

if TYPE_CHECKING:
    from rilbench.checkpoint import Checkpoint

PROMPT, ANSWER, REFUSED = "overlong prompt", "overlong answer", "refused"
"""Why a question has no score."""

_WINDOW = 16
"""Batches that are read and sorted by length together."""
_REFUSALS = (ValueError, LookupError, OSError, StopIteration)
"""What a processor raises of a question that it cannot take."""


@dataclass(frozen=True)
class Score:
    """What is known of one question."""

    key: str
    """Of its id and content: a question that was changed is scored anew."""
    id: str
    source: str
    prompt_tokens: int | None
    """With the picture's; None where nobody counted them."""
    answer_tokens: int
    logprob: float | None
    """Nats per token of the answer; None where there is a problem."""
    problem: str = ""
    """`PROMPT`, `ANSWER`, `REFUSED`, or nothing."""
    reason: str = ""
    """Of a refusal, the processor's words."""


@dataclass(frozen=True)
class Limits:
    """``data.max_prompt_tokens`` and ``data.max_response_tokens``."""

    prompt: int
    response: int


def reference(answer: str) -> str:
    """The text that is scored: the first alternative, its required facts as a list."""
    first = next((part for part in answer.split("<OR>") if part.strip()), answer)
    return ", ".join(part.strip() for part in first.split("<AND>") if part.strip()) or answer


def key_of(question: Question) -> str:
    """Sixteen hex digits over the question's id and content."""
    digest = hashlib.sha256()
    for text in (question.id, question.question, question.answer):
        digest.update(f"{len(text)}\0{text}".encode())
    for image in question.images:
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()[:16]


class Scorer:
    """A student that scores questions in batches, in this process.

    Args:
        checkpoint: as of `OfflineModel`.
        limits: what is longer is not scored.
        device: as torch names it. On a GPU the weights are bfloat16, else float32.

    Raises:
        UserError: transformers cannot load it.
    """

    def __init__(self, checkpoint: Checkpoint, limits: Limits, device: str = "cpu") -> None:
        import torch

        loaded = OfflineModel(checkpoint, "cpu")
        self.model: Any = loaded.model
        if device != "cpu":
            self.model = self.model.to(device, torch.bfloat16)
        self.processor: Any = loaded.processor
        self.limits = limits
        self.name = f"{checkpoint.content}-{device}"

    def score(self, batch: Sequence[Question]) -> list[Score]:
        """The scores of a batch, in its order."""
        texts = {q.id: self._texts(q) for q in batch}
        found: dict[str, Score] = {}
        for question in batch:
            if texts[question.id][1] > self.limits.response:
                found[question.id] = self._problem(question, texts, ANSWER)
            elif not texts[question.id][1]:
                reason = "its answer has no token of its own"
                found[question.id] = self._problem(question, texts, REFUSED, reason)
        rest, inputs = self._fitting([q for q in batch if q.id not in found], texts, found)
        for question, measured in zip(rest, self._measure(rest, inputs, texts), strict=True):
            found[question.id] = self._scored(question, texts, *measured)
        return [found[question.id] for question in batch]

    def _scored(
        self, question: Question, texts: dict[str, tuple[str, int]], prompt: int, logprob: float
    ) -> Score:
        if not math.isfinite(logprob):  # It could be neither sorted nor drawn by.
            reason = "the student's log-probability of its answer is not finite"
            return self._problem(question, texts, REFUSED, reason, prompt)
        answer = texts[question.id][1]
        return Score(key_of(question), question.id, question.source, prompt, answer, logprob)

    def _texts(self, question: Question) -> tuple[str, int]:
        """Prompt and answer in the student's template, and how many tokens are the answer's."""
        prompt: str = self.processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        whole = prompt + reference(question.answer)
        before, after = (self.processor.tokenizer(text)["input_ids"] for text in (prompt, whole))
        pairs = enumerate(zip(before, after, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), len(before))
        return whole, len(after) - same

    def _inputs(self, batch: Sequence[Question], texts: dict[str, tuple[str, int]]) -> Any:
        pictures = [open_picture(image) for question in batch for image in question.images]
        return self.processor(
            text=[texts[question.id][0] for question in batch],
            images=pictures,
            padding=True,
            padding_side="left",  # The answers end together, and only their logits are made.
            return_tensors="pt",
        )

    def _fitting(
        self,
        batch: list[Question],
        texts: dict[str, tuple[str, int]],
        found: dict[str, Score],
    ) -> tuple[list[Question], Any]:
        """What can be scored, as tensors; what cannot goes to ``found``."""
        try:
            inputs = self._inputs(batch, texts) if batch else None
        except _REFUSALS:
            for question in batch:
                if reason := self._refusal(question, texts):
                    found[question.id] = self._problem(question, texts, REFUSED, reason)
            if not any(question.id in found for question in batch):
                raise
            return self._fitting([q for q in batch if q.id not in found], texts, found)
        if inputs is None:
            return [], None
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        for question, length in zip(batch, lengths, strict=True):
            prompt = length - texts[question.id][1]
            if prompt > self.limits.prompt:
                found[question.id] = self._problem(question, texts, PROMPT, tokens=prompt)
        rest = [question for question in batch if question.id not in found]
        return (batch, inputs) if len(rest) == len(batch) else self._fitting(rest, texts, found)

    def _refusal(self, question: Question, texts: dict[str, tuple[str, int]]) -> str:
        try:
            self._inputs([question], texts)
        except _REFUSALS as error:
            return " ".join(str(error).split())[:200] or type(error).__name__
        return ""

    def _problem(
        self,
        question: Question,
        texts: dict[str, tuple[str, int]],
        problem: str,
        reason: str = "",
        tokens: int | None = None,
    ) -> Score:
        answer = texts[question.id][1]
        key = key_of(question)
        return Score(key, question.id, question.source, tokens, answer, None, problem, reason)

    def _measure(
        self, batch: list[Question], inputs: Any, texts: dict[str, tuple[str, int]]
    ) -> list[tuple[int, float]]:
        """Length of each prompt in tokens, and the mean log-probability of its answer's."""
        import torch

        if not batch:
            return []
        answers = [texts[question.id][1] for question in batch]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        if self.model.device.type != "cpu":
            inputs = inputs.to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=max(answers) + 1).logits
            means = [
                -torch.nn.functional.cross_entropy(
                    logits[i, -n - 1 : -1].float(), inputs["input_ids"][i, -n:]
                ).item()
                for i, n in enumerate(answers)
            ]
        return [(length - n, mean) for length, n, mean in zip(lengths, answers, means, strict=True)]


def batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Batches of like length, a few of them in memory at a time.

    Made of all questions, scored or not: a question then has the same company, and so the same
    rounding, whether or not the scoring was killed in between.
    """
    stream = iter(questions)
    while window := list(islice(stream, size * _WINDOW)):
        window.sort(key=lambda q: (sum(map(len, q.images)), len(q.question) + len(q.answer)))
        yield from (window[i : i + size] for i in range(0, len(window), size))


def score_all(
    scorer: Scorer,
    questions: Iterable[Question],
    journal: Path,
    size: int,
    on_score: Callable[[int], None],
) -> dict[str, Score]:
    """Score every question that the journal lacks; returns all scores by id.

    Args:
        scorer: the student.
        questions: at least once through; ids are unique.
        journal: where scores stand. The first line says whose they are.
        size: questions of a batch.
        on_score: called with the number of questions that are done.

    Raises:
        UserError: the journal is another student's, or was made with other limits.
    """
    head = {"student": scorer.name, **asdict(scorer.limits)}
    rows = read_journal(journal)
    if rows and rows[0] != head:
        raise UserError(
            f"{journal} has the scores of another student or of other limits; delete it, or give "
            "another --scores"
        )
    if not rows:
        journal.parent.mkdir(parents=True, exist_ok=True)
        append_journal(journal, [head])
    known = {score.key: score for score in _scores(journal, rows[1:])}
    found: dict[str, Score] = {}
    for batch in batches(questions, size):
        keys = {question.id: key_of(question) for question in batch}
        if not known.keys() >= set(keys.values()):
            scored = scorer.score(batch)
            append_journal(journal, [asdict(each) for each in scored if each.key not in known])
            known.update({each.key: each for each in scored if each.key not in known})
        found.update({name: known[key] for name, key in keys.items()})
        on_score(len(found))
    return found


def _scores(journal: Path, rows: list[dict[str, Any]]) -> list[Score]:
    try:
        return [Score(**row) for row in rows]
    except TypeError as error:
        raise UserError(f"{journal} is no file of scores ({error}); delete it") from error
