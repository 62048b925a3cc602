"""How likely the student finds each question's reference answer, and how long both are.

A question's score is the mean over the answer's tokens of log π(token | images, question, answer so
far), in nats, for the student before training. Scores are written to JSON lines batch by batch, so
that a killed scoring resumes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rilbench.data.question import Question
from rilbench.errors import UserError
from rilbench.evaluate.batch_engine import OfflineModel
from rilbench.images import open_image
from rilbench.jsonl_log import append_jsonl, read_jsonl

if TYPE_CHECKING:
    from rilbench.checkpoint import Checkpoint

PROMPT, ANSWER, REFUSED = "overlong prompt", "overlong answer", "refused"
"""Reasons why a question has no score."""

_WINDOW = 16
"""Batches that are read and sorted by length together."""
_PROCESSOR_ERRORS = (ValueError, LookupError, OSError, StopIteration)
"""What a processor raises for a question that it cannot process."""


@dataclass(frozen=True)
class Score:
    """The score of one question, or the reason why there is none."""

    key: str
    """Hash of the question's id and content: a changed question is scored again."""
    id: str
    source: str
    prompt_tokens: int | None
    """Tokens of the prompt, images included; None if they were not counted."""
    answer_tokens: int
    logprob: float | None
    """Nats per token of the answer; None if there is a problem."""
    problem: str = ""
    """`PROMPT`, `ANSWER`, `REFUSED`, or empty."""
    reason: str = ""
    """The processor's words, for `REFUSED`."""


@dataclass(frozen=True)
class Limits:
    """The recipe's ``data.max_prompt_tokens`` and ``data.max_response_tokens``."""

    prompt: int
    response: int


@dataclass(frozen=True)
class _Item:
    """A question in the student's template."""

    question: Question
    text: str
    """Prompt and reference answer."""
    answer_tokens: int

    def score(self, prompt_tokens: int | None, logprob: float) -> Score:
        q = self.question
        return Score(key_of(q), q.id, q.source, prompt_tokens, self.answer_tokens, logprob)

    def problem(self, problem: str, reason: str = "", prompt_tokens: int | None = None) -> Score:
        q, tokens = self.question, self.answer_tokens
        return Score(key_of(q), q.id, q.source, prompt_tokens, tokens, None, problem, reason)


def reference(answer: str) -> str:
    """Return the text that is scored: the first alternative, its required facts as a list."""
    first = next((part for part in answer.split("<OR>") if part.strip()), answer)
    return ", ".join(part.strip() for part in first.split("<AND>") if part.strip()) or answer


def key_of(question: Question) -> str:
    """Return 16 hex digits over the question's id and content."""
    digest = hashlib.sha256()
    for text in (question.id, question.question, question.answer):
        digest.update(f"{len(text)}\0{text}".encode())
    for image in question.images:
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()[:16]


class Scorer:
    """A student that scores questions in batches, in this process.

    Args:
        checkpoint: the student.
        limits: longer questions are not scored.
        device: torch's name of the device. Weights are bfloat16 on a GPU, else float32.

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
        """Return the scores of a batch, in its order."""
        scores: dict[str, Score] = {}
        items = []
        for question in batch:
            item = self._item(question)
            if item.answer_tokens > self.limits.response:
                scores[question.id] = item.problem(ANSWER)
            elif not item.answer_tokens:
                scores[question.id] = item.problem(REFUSED, "its answer has no token of its own")
            else:
                items.append(item)
        items, inputs = self._inputs(items, scores)
        if items:
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            logprobs = self._logprobs(items, inputs)
            for item, length, logprob in zip(items, lengths, logprobs, strict=True):
                prompt_tokens = length - item.answer_tokens
                if math.isfinite(logprob):
                    score = item.score(prompt_tokens, logprob)
                else:  # it could not be sorted
                    reason = "the student's log-probability of its answer is not finite"
                    score = item.problem(REFUSED, reason, prompt_tokens)
                scores[item.question.id] = score
        return [scores[question.id] for question in batch]

    def _item(self, question: Question) -> _Item:
        prompt: str = self.processor.apply_chat_template(
            question.chat, add_generation_prompt=True, tokenize=False
        )
        text = prompt + reference(question.answer)
        before, after = (self.processor.tokenizer(t)["input_ids"] for t in (prompt, text))
        # The answer's first letters may merge with the prompt's last token.
        pairs = enumerate(zip(before, after, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), len(before))
        return _Item(question, text, len(after) - same)

    def _inputs(self, items: list[_Item], scores: dict[str, Score]) -> tuple[list[_Item], Any]:
        """Return the items that can be scored, and their tensors.

        The others are left out, and ``scores`` gets their problems.
        """
        while items:
            try:
                inputs = self._process(items)
            except _PROCESSOR_ERRORS:
                # Find out whose fault it is, one by one.
                for item in items:
                    try:
                        self._process([item])
                    except _PROCESSOR_ERRORS as error:  # noqa: PERF203
                        reason = " ".join(str(error).split())[:200] or type(error).__name__
                        scores[item.question.id] = item.problem(REFUSED, reason)
                if not any(item.question.id in scores for item in items):
                    raise
            else:
                lengths = inputs["attention_mask"].sum(dim=1).tolist()
                for item, length in zip(items, lengths, strict=True):
                    prompt_tokens = length - item.answer_tokens
                    if prompt_tokens > self.limits.prompt:
                        problem = item.problem(PROMPT, prompt_tokens=prompt_tokens)
                        scores[item.question.id] = problem
                if not any(item.question.id in scores for item in items):
                    return items, inputs
            items = [item for item in items if item.question.id not in scores]
        return [], None

    def _process(self, items: list[_Item]) -> Any:
        images = [open_image(image) for item in items for image in item.question.images]
        return self.processor(
            text=[item.text for item in items],
            images=images or None,
            padding=True,
            padding_side="left",  # answers end together, so that only their logits are computed
            return_tensors="pt",
        )

    def _logprobs(self, items: list[_Item], inputs: Any) -> list[float]:
        """The mean log-probability of each answer's tokens."""
        import torch

        if self.model.device.type != "cpu":
            inputs = inputs.to(self.model.device)
        longest = max(item.answer_tokens for item in items)
        with torch.inference_mode():
            logits = self.model(**inputs, logits_to_keep=longest + 1).logits
            return [
                -torch.nn.functional.cross_entropy(
                    logits[i, -item.answer_tokens - 1 : -1].float(),
                    inputs["input_ids"][i, -item.answer_tokens :],
                ).item()
                for i, item in enumerate(items)
            ]


def batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    """Yield batches of similar length, with a few of them in memory at a time.

    They are made of all questions, scored or not. A question is then always in the same batch, and
    has the same rounding, whether or not the scoring was killed in between.
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
    """Score every question that the journal lacks; return all scores by id.

    Args:
        scorer: the student.
        questions: read once; ids are unique.
        journal: JSON lines of scores. The first line names the student and the limits.
        size: questions per batch.
        on_score: called with the number of questions that are done.

    Raises:
        UserError: the journal is of another student or of other limits.
    """
    head = {"student": scorer.name, **asdict(scorer.limits)}
    lines = read_jsonl(journal)
    if lines and lines[0] != head:
        raise UserError(
            f"{journal} has the scores of another student or of other limits; delete it, or give "
            "another --scores"
        )
    if not lines:
        journal.parent.mkdir(parents=True, exist_ok=True)
        append_jsonl(journal, [head])
    try:
        known = {score.key: score for score in (Score(**line) for line in lines[1:])}
    except TypeError as error:
        raise UserError(f"{journal} is not a file of scores ({error}); delete it") from error
    scores: dict[str, Score] = {}
    for batch in batches(questions, size):
        keys = {question.id: key_of(question) for question in batch}
        if not known.keys() >= set(keys.values()):
            new = [score for score in scorer.score(batch) if score.key not in known]
            append_jsonl(journal, [asdict(score) for score in new])
            known.update({score.key: score for score in new})
        scores.update({id_: known[key] for id_, key in keys.items()})
        on_score(len(scores))
    return scores
