"""The engine ``batch``: generate responses in this process, many questions per forward pass.

``transformers serve`` generates one response at a time, which is slow for a small model on a CPU.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rilbench.errors import UserError
from rilbench.evaluate.image_resize import AS_IS, Pixels
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.model.bars import no_bars
from rilbench.serving import Completion, Sampling, failure

if TYPE_CHECKING:
    from rilbench.checkpoint import Checkpoint
    from rilbench.evaluate.responses import AnswerFile


_LOADING = threading.Lock()
_TOO_LARGE = "use --engine server, which divides a model among GPUs, or a device with more memory"
_log = logging.getLogger(__name__)
_REFUSALS = (ValueError, LookupError, OSError, StopIteration)
"""Exceptions of a processor that cannot take a question: an image of 8000 to 1 pixels, a file that
is no image, or an image mark in its text."""


def batches(questions: Sequence[BenchmarkQuestion], size: int) -> list[list[BenchmarkQuestion]]:
    """Divide all questions, shortest prompts first, into batches of at most ``size``.

    Questions with a response are included: each question then always shares its batch with the same
    others, and so has the same rounding, whether or not its evaluation was killed in between.
    """

    def length(question: BenchmarkQuestion) -> tuple[int, int, tuple[str, str]]:
        images = sum(part["type"] == "image" for part in question.parts)
        return images, len(question.text), question.key

    ordered = sorted(questions, key=length)
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


class OfflineModel:
    """A checkpoint that generates greedily in batches.

    Args:
        checkpoint: a model whose processor takes all images of a batch in one list, as
            Qwen2.5-VL's does.
        device: as torch names it.
        pixels: size limits of an image.
        dtype: type of the weights; ``auto`` is the checkpoint's.

    Raises:
        UserError: transformers cannot load it, or the device's memory does not hold it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        pixels: Pixels = AS_IS,
        dtype: str = "float32",
    ) -> None:
        import torch

        self.pixels = pixels

        try:
            with _LOADING, no_bars():  # transformers neither imports nor loads in two threads.
                from transformers import AutoModelForImageTextToText, AutoProcessor

                model = AutoModelForImageTextToText.from_pretrained(
                    checkpoint.path, dtype=dtype, local_files_only=True
                )
                self.processor = AutoProcessor.from_pretrained(
                    checkpoint.path, local_files_only=True
                )
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"transformers cannot load {checkpoint.path} ({reason}); copy the model again"
            ) from error
        try:
            self.model: Any = model.to(device).eval()
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the memory of {device} does not hold {checkpoint.path.name}; {_TOO_LARGE}"
            ) from error
        ends = self.model.generation_config.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])

    def answer(
        self, prompts: PromptSet, batch: Sequence[BenchmarkQuestion], sampling: Sampling
    ) -> list[Completion]:
        """Return the greedy responses to a batch; the batch's seconds are divided among them.

        Questions that the processor refuses get a failure and are left out of the batch, the same
        ones in every run.
        """
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
        sequences = self._generate(inputs, sampling)
        if sequences is None:
            if len(batch) == 1:
                why = f"the memory of {self.model.device} is too small for one question"
                raise UserError(f"{why}; {_TOO_LARGE}, or lower --max-pixels")
            _log.info("a batch of %d is too large for the memory; halved", len(batch))
            half = len(batch) // 2
            parts = batch[:half], batch[half:]
            return [found for part in parts for found in self.answer(prompts, part, sampling)]
        new = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        # Without the padding: up to and with the first end token.
        responses = []
        for tokens in new:
            end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
            responses.append(tokens[: end + 1])
        texts = self.processor.batch_decode(responses, skip_special_tokens=True)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        seconds = (time.monotonic() - start) / len(batch)
        return [
            Completion(
                text=text,
                # Like transformers serve: a response of the full length counts as truncated.
                finish_reason="length" if len(tokens) >= sampling.max_tokens else "stop",
                prompt_tokens=length,
                completion_tokens=len(tokens),
                seconds=seconds,
                generated_here=True,
            )
            for text, tokens, length in zip(texts, responses, lengths, strict=True)
        ]

    def _generate(self, inputs: Any, sampling: Sampling) -> Any:
        """Return the batch's token sequences; None if the device's memory is too small for it."""
        import torch

        try:
            with torch.inference_mode():
                return self.model.generate(
                    **inputs,
                    **sampling.extra,
                    do_sample=False,
                    max_new_tokens=sampling.max_tokens,
                    pad_token_id=self.processor.tokenizer.pad_token_id,
                )
        except torch.OutOfMemoryError:
            pass  # Its traceback holds the tensors until the handler ends.
        torch.cuda.empty_cache()
        return None

    def _inputs(self, prompts: PromptSet, batch: Sequence[BenchmarkQuestion]) -> Any:
        """Return the batch as the model's tensors, padded on the left."""
        from PIL import Image

        conversations, images = [], []
        for question in batch:
            content = []
            for part in question.parts:
                if part["type"] == "image":
                    file = io.BytesIO(self.pixels.fit(prompts.folder / part["path"]))
                    with Image.open(file) as image:
                        images.append(image.convert("RGB"))
                    content.append({"type": "image"})
                else:
                    content.append({"type": "text", "text": part["text"]})
            conversations.append([{"role": "user", "content": content}])
        texts = self.processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=False
        )
        return self.processor(
            text=texts,
            images=images or None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.model.device, dtype=self.model.dtype)

    def _refusal(self, prompts: PromptSet, question: BenchmarkQuestion) -> str | None:
        """Return why the processor refuses a question, or None."""
        try:
            self._inputs(prompts, [question])
        except _REFUSALS as error:
            why = " ".join(str(error).split())[:300] or type(error).__name__
            return f"the model's processor refuses it: {why}"
        return None


def answer_in_batches(
    model: OfflineModel,
    prompts: PromptSet,
    answers: AnswerFile,
    sampling: Callable[[BenchmarkQuestion], Sampling],
    size: int,
    on_answer: Callable[[int], None],
) -> None:
    """Generate every missing response, each batch written through to the disk.

    Args:
        model: to evaluate.
        prompts: all questions.
        answers: takes the responses; a kill loses at most one batch.
        sampling: returns a question's sampling, whose ``max_tokens`` counts; decoding is greedy.
        size: questions per batch.
        on_answer: called with the number of questions that have a response.
    """
    done = len(prompts.questions) - len(answers.missing(prompts.questions))
    by_length: dict[int, list[BenchmarkQuestion]] = {}
    for question in prompts.questions:
        if question.problem is None:
            by_length.setdefault(sampling(question).max_tokens, []).append(question)
    for askable in by_length.values():
        for batch in batches(askable, size):
            if missing := answers.missing(batch):
                completions = model.answer(prompts, batch, sampling(batch[0]))
                by_key = dict(zip((q.key for q in batch), completions, strict=True))
                answers.append_all({question.key: by_key[question.key] for question in missing})
                done += len(missing)
                on_answer(done)
