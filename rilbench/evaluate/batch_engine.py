"""Answer a suite's questions in batches, in this process: no server, many questions at a time.

``transformers serve`` generates one answer at a time; here a batch shares each forward pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.prompts import PromptSet, Question
from rilbench.serving import Completion, Sampling, failure

if TYPE_CHECKING:
    from rilbench.checkpoint import Checkpoint
    from rilbench.evaluate.responses import AnswerFile


_LOADING = threading.Lock()
_REFUSALS = (ValueError, LookupError, OSError, StopIteration)
"""What a processor raises of a question that it cannot take: a picture of 8000 to 1, say, a file
that is none, or the mark of a picture in its text."""


def batches(questions: Sequence[Question], size: int) -> list[list[Question]]:
    """Cut the questions, shortest prompts first, into batches of at most ``size``.

    Made of all questions, answered or not: a question then has the same company, and so the same
    rounding, whether or not its evaluation was killed in between.
    """
    ordered = sorted(questions, key=_length)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


def _length(question: Question) -> tuple[int, int, tuple[str, str]]:
    """What the prompt's length in tokens grows with: pictures above all."""
    pictures = sum(part["type"] == "image" for part in question.parts)
    return pictures, len(question.text), question.key


class OfflineModel:
    """A checkpoint that answers greedily in batches.

    Args:
        checkpoint: a model whose processor takes all pictures of a batch in one list, as
            Qwen2.5-VL's does.
        device: as torch names it.
        pixels: limits of a picture.

    Raises:
        UserError: transformers cannot load it.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", pixels: Pixels = AS_IS) -> None:
        import torch

        self.pixels = pixels

        try:
            with _LOADING, _no_bars():  # transformers neither imports nor loads in two threads.
                from transformers import AutoModelForImageTextToText, AutoProcessor

                model = AutoModelForImageTextToText.from_pretrained(
                    checkpoint.path, dtype=torch.float32, local_files_only=True
                )
                self.processor = AutoProcessor.from_pretrained(
                    checkpoint.path, local_files_only=True
                )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"transformers cannot load {checkpoint.path} ({reason}); copy the model again"
            ) from error
        self.model: Any = model.to(device).eval()
        ends = self.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def answer(
        self, prompts: PromptSet, batch: Sequence[Question], sampling: Sampling
    ) -> list[Completion]:
        """Return the greedy answers to a batch; each ``seconds`` is its share of the batch's.

        What the processor refuses gets a failure, and the others' company is then without it: so it
        is at every run, as what it refuses is always the same.
        """
        import torch

        start = time.monotonic()
        try:
            inputs = self._inputs(prompts, batch)
        except _REFUSALS:
            refused = {question.key: self._refusal(prompts, question) for question in batch}
            if not any(refused.values()):
                raise
            others = [question for question in batch if refused[question.key] is None]
            answered = iter(self.answer(prompts, others, sampling) if others else ())
            reasons = [refused[question.key] for question in batch]
            return [failure(why) if why is not None else next(answered) for why in reasons]
        with torch.inference_mode():
            sequences = self.model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=sampling.max_tokens,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        new = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        answers = [self._until_end(tokens) for tokens in new]
        texts = self.processor.batch_decode(answers, skip_special_tokens=True)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        seconds = (time.monotonic() - start) / len(batch)
        return [
            Completion(
                text=text,
                # As transformers serve has it: an answer of the full length counts as cut.
                finish_reason="length" if len(tokens) >= sampling.max_tokens else "stop",
                prompt_tokens=length,
                completion_tokens=len(tokens),
                seconds=seconds,
            )
            for text, tokens, length in zip(texts, answers, lengths, strict=True)
        ]

    def _inputs(self, prompts: PromptSet, batch: Sequence[Question]) -> Any:
        """The batch as the model's tensors, padded on the left."""
        from PIL import Image

        conversations, pictures = [], []
        for question in batch:
            content = []
            for part in question.parts:
                if part["type"] == "image":
                    with Image.open(prompts.folder / part["path"]) as picture:
                        pictures.append(self.pixels.scaled(picture.convert("RGB")))
                    content.append({"type": "image"})
                else:
                    content.append({"type": "text", "text": part["text"]})
            conversations.append([{"role": "user", "content": content}])
        texts = self.processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=False
        )
        return self.processor(
            text=texts,
            images=pictures or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device)

    def _refusal(self, prompts: PromptSet, question: Question) -> str | None:
        """Why the processor refuses a question; None if it does not."""
        try:
            self._inputs(prompts, [question])
        except _REFUSALS as error:
            why = " ".join(str(error).split())[:300] or type(error).__name__
            return f"the model's processor refuses it: {why}"
        return None

    def _until_end(self, tokens: list[int]) -> list[int]:
        """Without the padding: up to and with the first end token."""
        end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
        return tokens[: end + 1]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' bars out of our own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def answer_in_batches(
    model: OfflineModel,
    prompts: PromptSet,
    answers: AnswerFile,
    sampling: Callable[[Question], Sampling],
    size: int,
    on_answer: Callable[[int], None],
) -> None:
    """Answer every question that has no answer yet, each batch written through to the disk.

    Args:
        model: what answers.
        prompts: all questions.
        answers: where the answers go; a kill loses at most one batch.
        sampling: of a question; its ``max_tokens`` counts, decoding is greedy.
        size: questions per batch.
        on_answer: gets the number of questions that are done.
    """
    done = len(prompts.questions) - len(answers.missing(prompts.questions))
    alike: dict[int, list[Question]] = {}
    for question in prompts.questions:
        if question.problem is None:
            alike.setdefault(sampling(question).max_tokens, []).append(question)
    for askable in alike.values():
        for batch in batches(askable, size):
            if missing := answers.missing(batch):
                keys = [question.key for question in batch]
                texts = model.answer(prompts, batch, sampling(batch[0]))
                found = dict(zip(keys, texts, strict=True))
                answers.append_all({question.key: found[question.key] for question in missing})
                done += len(missing)
                on_answer(done)
