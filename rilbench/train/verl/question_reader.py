"""What verl will do with one question, done before anything is spent.

verl reads a row in three places: the data set splits its text at the marks of pictures, videos and
sounds; the rollout worker decodes the pictures and resizes them; the student's processor writes
each picture's tokens into the prompt. `QuestionReader` calls the same functions. What depends only
on a picture's size (its tokens, its aspect ratio) is computed for the first picture of each size.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from PIL import Image
from verl.utils.tokenizer.chat_template import apply_chat_template
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from rilbench.data.question import PLACEHOLDER, Question
from rilbench.errors import InvalidQuestionError
from rilbench.images import check_image
from rilbench.train.verl.model_families import (
    RLDataset,
    StudentModel,
    is_qwen,
)

VERL_MARKS = ("<video>", "<audio>")
"""Words at which verl splits a text beside ``<image>``, and then misses the file."""

_REFUSALS = (
    AssertionError,
    ArithmeticError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
)
"""What verl, Pillow, qwen-vl-utils and the processors raise for a question that they refuse."""


class QuestionReader(RLDataset):
    """Reads questions as verl does, from memory and not from its files.

    Threads may share one.

    Args:
        student: folder of the student.
        limits: ``min_pixels`` and ``max_pixels`` of `rilbench.train.pipeline.prepare_data`.
        max_prompt_tokens: most tokens of a prompt, pictures included.
    """

    def __init__(self, student: Path, limits: dict[str, int], max_prompt_tokens: int) -> None:
        model = StudentModel(path=str(student))
        self.processor, self.tokenizer = model.processor, model.tokenizer
        self.image_key, self.video_key, self.audio_key = "images", "videos", "audios"
        self.limits, self.max_prompt_tokens = limits, max_prompt_tokens
        self.config = {"pictures_as_they_are": not is_qwen(self.processor)}
        self.image_patch_size = getattr(self.processor.image_processor, "patch_size", 14)
        self.builder = create_continuous_token_builder(
            self.tokenizer, hf_model_type=model.hf_config.model_type, processor=self.processor
        )
        added = self.tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special}
        self.special = sorted(special | set(self.tokenizer.all_special_tokens))
        self._by_size: dict[tuple[int, int], int | str] = {}
        self._lock = threading.Lock()  # of the processor, which is not safe to share

    def refusal(self, question: Question) -> str:
        """Why a question cannot be trained on, as ``kind: reason``; "" if it can."""
        for mark in VERL_MARKS:
            if mark in question.question:
                return f"text: it has {mark}, at which verl looks for a file; write it otherwise"
        words = question.question.replace(PLACEHOLDER, "")  # the mark may be a token as well
        for token in self.special:
            if token in words:
                return f"text: it has {token}, a special token of the student; write it otherwise"
        try:
            tokens = self.prompt_tokens(question)
        except InvalidQuestionError as error:
            return f"picture: {error}"
        except _REFUSALS as error:
            return f"verl: {_one_line(error)}"
        if tokens > self.max_prompt_tokens:
            return (
                f"length: it has {tokens} tokens with its pictures, more than "
                f"data.max_prompt_tokens={self.max_prompt_tokens}"
            )
        return ""

    def prompt_tokens(self, question: Question) -> int:
        """Tokens of a question's prompt, pictures included.

        Raises:
            InvalidQuestionError: a damaged picture, or one that the processor refuses.
        """
        sizes = [check_image(image) for image in question.images]
        length = self._text_tokens(self._messages(question.marked, [{} for _ in sizes]))
        for image, size in zip(question.images, sizes, strict=True):
            if size not in self._by_size:
                self._by_size[size] = self._picture_tokens(image)
            tokens = self._by_size[size]
            if isinstance(tokens, str):
                raise InvalidQuestionError(f"an image of {size[0]} x {size[1]} pixels: {tokens}")
            length += tokens
        return length

    def _messages(self, text: str, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A question's messages; like the rows of a run, it may leave its pictures elsewhere."""
        row = {
            "prompt": [{"role": "user", "content": text}],
            "images": [{**image, **self.limits} for image in images],
        }
        messages: list[dict[str, Any]] = self._build_messages(row, key="prompt")
        return messages

    def _text_tokens(self, messages: list[dict[str, Any]]) -> int:
        """Tokens of a prompt in which each picture is one mark."""
        text = apply_chat_template(
            self.processor, messages, tokenize=False, add_generation_prompt=True
        )
        # Not by the processor's tokenizer, which another thread may be using.
        return len(self.tokenizer(text)["input_ids"])

    def _picture_tokens(self, image: bytes) -> int | str:
        """Tokens that a picture takes beyond those of its mark, or why the processor refuses it."""
        messages = self._messages("<image>", [{"bytes": image}])
        with self._lock:
            try:
                images, _, _ = self._process_multi_modal_info(
                    messages, self.image_patch_size, self.config
                )
                prompt = self.builder.build_initial_tokens(messages, images=images)
            except _REFUSALS as error:
                return _one_line(error)
            return len(prompt) - self._text_tokens(messages)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
