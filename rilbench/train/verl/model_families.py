"""What differs between families of vision-language models, as verl 0.9.1 meets them.

verl's ``hf_processor`` knows a fixed list of processors (`rilbench.config.layouts`); of any other
it only warns, and goes on without images. Its ways in for ours are Hydra's ``_target_`` of the
model's configuration (`StudentModel`), which every process of verl reads its processor from, and
the data sets' ``custom_cls`` (`RLDataset`, `SFTDataset`).

Families with M-RoPE (Qwen-VL, GLM-V) number a picture's tokens by row and column: verl binds the
model's ``get_rope_index`` to their processors, and their rows have four positions for a token. The
others count tokens as text does.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, PreTrainedTokenizerBase
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.flops_counter import ESTIMATE_FUNC
from verl.utils.tokenizer.chat_template import apply_chat_template
from verl.workers.config import HFModelConfig

from rilbench.config.layouts import LAYOUTS
from rilbench.data.row_files import mapped_column
from rilbench.model.inputs import (
    end_turns_as_template,
    never_sampled,
    picture_inputs,
    teacher_tokens,
)
from rilbench.train.verl.config import DATASETS_CACHE


@dataclass
class StudentModel(HFModelConfig):  # type: ignore[misc]
    """verl's configuration of a model, with a processor also where verl makes none."""

    processor: Any = None
    share_prompts: ClassVar[bool] = False
    """Whether each prompt is computed once. No field: verl's vLLM server reads its own class's."""

    def __post_init__(self) -> None:
        layout = LAYOUTS.get(AutoConfig.from_pretrained(self.path).model_type)
        if layout and layout.token_types:  # flash-attn knows no two directions
            self.override_config["attn_implementation"] = "sdpa"
        with warnings.catch_warnings():
            # "This may affect multimodal processing": not with the processor below.
            warnings.filterwarnings("ignore", "Failed to create processor: Unsupported")
            super().__post_init__()
        if self.load_tokenizer and self.processor is None:
            self.processor = AutoProcessor.from_pretrained(
                self.local_tokenizer_path, trust_remote_code=self.trust_remote_code
            )
            assert not isinstance(self.processor, PreTrainedTokenizerBase), self.path
        if self.load_tokenizer:
            tokenizers = (self.tokenizer, self.processor.tokenizer)
            end_turns_as_template(self.processor, *tokenizers)
            for tokenizer in tokenizers:
                leave_start_to_template(tokenizer, self.processor.chat_template)


def leave_start_to_template(tokenizer: Any, template: str) -> None:
    """Let a text begin with one BOS token and not two, where the chat template writes it as well.

    verl tokenises what the template made as it would any text.
    """
    start = tokenizer.bos_token
    written = start and (start in template or "bos_token" in template)
    if written and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]:
        tokenizer.add_bos_token = False
        assert not tokenizer("")["input_ids"], start


@contextmanager
def own_forwards(config: Any) -> Iterator[None]:
    """Keep transformers' forward of GLM-4.1V while verl builds a model.

    verl 0.9.1 replaces it by one that takes a picture's features for a tensor, as they were in
    transformers 4: it raises at the first picture. And its count of FLOPs looks for the decoder's
    sizes where transformers 4 had them; without it, as for other layouts, verl's MFU is zero.
    """
    if config.model_type != "glm4v":
        yield
        return
    from transformers.models.glm4v import modeling_glm4v

    kinds = (modeling_glm4v.Glm4vModel, modeling_glm4v.Glm4vForConditionalGeneration)
    forwards = [kind.forward for kind in kinds]
    ESTIMATE_FUNC.pop("glm4v", None)
    try:
        yield
    finally:
        for kind, forward in zip(kinds, forwards, strict=True):
            kind.forward = forward


def give_mean(model: Any) -> None:
    """Let verl take the mean of what Qwen-VL's vision tower returns.

    Where a micro-batch has no picture, verl 0.9.1 shows the tower a blank one and adds nothing
    times the mean of its features, which were a tensor in transformers 4.
    """

    def with_mean(_: Any, __: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            output.mean = output.pooler_output.mean

    model.model.visual.register_forward_hook(with_mean)


class BlankPicture:
    """A picture that a model sees, and that changes nothing, where a micro-batch has none.

    FSDP's ranks gather the vision tower's weights together: a rank whose rows are all of text would
    wait for none, and the others for it. verl does the same for Qwen-VL.
    """

    shown = False

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.inputs = picture_inputs(processor, [Image.new("RGB", (64, 64))])
        model.get_input_embeddings().register_forward_hook(self._add_nothing)

    def _add_nothing(self, _: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        """The text's embeddings, and the features of the blank picture times zero."""
        if not self.shown:
            return embedded
        inputs = {
            name: value.to(embedded.device, embedded.dtype if value.is_floating_point() else None)
            for name, value in self.inputs.items()
        }
        features = self.model.get_image_features(**inputs).pooler_output
        added: torch.Tensor = embedded + 0.0 * sum(each.mean() for each in features)
        return added


@dataclass
class SharedPromptModel(StudentModel):
    """The same for `rilbench.train.verl.shared_prompt_engine`: each prompt once."""

    share_prompts: ClassVar[bool] = True


def has_mrope(processor: Any) -> bool:
    """Whether rows have four positions for each token: of text, and M-RoPE's three."""
    return hasattr(processor, "get_rope_index")


def is_qwen(processor: Any) -> bool:
    """Whether it is one of Qwen-VL's, whose pictures verl resizes and whose marks it folds."""
    return "Qwen2VLImageProcessor" in type(processor.image_processor).__name__


class MarkedPrompts:
    """A client of vLLM's servers for a layout of which verl does not know how vLLM takes pictures.

    vLLM writes a picture's tokens itself, in the place of one mark; verl folds them for Qwen-VL.
    And verl forbids the marks in sampling by a processor that its vLLM server has not. Nor does
    that server know the student's end token where a released tokenizer names another.
    """

    def __init__(self, servers: Any, processor: Any) -> None:
        self.servers, self.processor = servers, processor
        self.bias = dict.fromkeys(never_sampled(processor.tokenizer), -100.0)  # vLLM's least
        self.ends = [processor.tokenizer.eos_token_id]
        self.messages: list[dict[str, Any]] = []
        """The conversation that the next prompt is of."""

    async def generate(
        self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **request: Any
    ) -> Any:
        """As verl's client."""
        ends = [] if sampling_params.get("ignore_eos") else self.ends
        return await self.servers.generate(
            prompt_ids=marked_prompt(self.processor, self.messages),
            sampling_params={**sampling_params, "logit_bias": self.bias, "stop_token_ids": ends},
            **request,
        )


def marked_prompt(processor: Any, messages: list[dict[str, Any]]) -> list[int]:
    """The tokens of a conversation in which each picture is the mark of the chat template."""
    text = apply_chat_template(processor, messages, tokenize=False, add_generation_prompt=True)
    tokens: list[int] = processor.tokenizer(text)["input_ids"]
    return tokens


class RLDataset(RLHFDataset):  # type: ignore[misc]
    """verl's data set, of rows that name their pictures (`rilbench.train.pipeline.prepare_data`).

    So a picture is read in the process that needs it, and does not travel with the row. Pictures
    are resized as Qwen-VL asks only where the processor is of it; the trainer says so by
    ``data.pictures_as_they_are``, as pictures are also read where there is no processor.
    """

    def _read_files_and_tokenize(self) -> None:
        """As verl's; what ``datasets`` writes of the file, its cache, goes beside it."""
        cache = datasets.config.HF_DATASETS_CACHE
        datasets.config.HF_DATASETS_CACHE = Path(self.data_files[0]).parent / DATASETS_CACHE
        try:
            super()._read_files_and_tokenize()
        finally:
            datasets.config.HF_DATASETS_CACHE = cache

    @classmethod
    def _process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: Any
    ) -> Any:
        messages = [
            {**message, "content": [_opened(part, config) for part in message["content"]]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]
        if not config.get("pictures_as_they_are"):
            return super()._process_multi_modal_info(messages, image_patch_size, config)
        contents = [m["content"] for m in messages if isinstance(m["content"], list)]
        parts = [part for content in contents for part in content if part["type"] == "image"]
        return [part["image"].convert("RGB") for part in parts] or None, None, None


def _opened(part: dict[str, Any], config: Any) -> dict[str, Any]:
    """A part of a message, its picture opened if it names one."""
    if "row" not in part:
        return part
    opened = {name: value for name, value in part.items() if name != "row"}
    return {**opened, "image": Image.open(io.BytesIO(_picture(part, config)))}


def _picture(named: dict[str, Any], config: Any) -> bytes:
    picture: bytes = mapped_column(Path(config.picture_file))[named["row"]]
    return picture


class SFTDataset(MultiTurnSFTDataset):  # type: ignore[misc]
    """verl's data set for SFT, likewise; a response has the tokens that the loop gives it.

    verl would take a teacher's word for the place of a picture where it reads ``<image>``, and for
    a token of the template where it looks like one.
    """

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: Any,
        config: Any,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        # verl asks the image processor for what only Qwen-VL's has: the size that it resizes by.
        known = processor if is_qwen(processor) else None
        super().__init__(parquet_files, tokenizer, config, known, max_samples)
        self.processor, self.config = processor, config

    def _build_messages(self, example: dict[str, Any]) -> Any:
        images: list[Any] = [_opened(image, self.config) for image in example[self.image_key]]
        if not is_qwen(self.processor):
            images = [image["image"] for image in images]  # verl leaves opened pictures alone
        question, response = example[self.messages_key]
        shown = {**example, self.image_key: images, self.messages_key: [question]}
        return [*super()._build_messages(shown), response]

    def __getitem__(self, item: int) -> dict[str, Any]:
        """As verl's; rows of text alone have the same keys as those with pictures."""
        row: dict[str, Any] = super().__getitem__(item)
        return {"multi_modal_inputs": {}, **row}

    def _process_single_message(
        self, index: int, message: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """As verl's for a question; a response is trained on up to its end token."""
        if message["role"] != "assistant":
            made: tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]
            made = super()._process_single_message(index, message, *args, **kwargs)
            return made
        response = teacher_tokens(self.tokenizer, message["content"], self.max_length)
        tokens = torch.tensor([*self.generation_prompt, *response])
        learned = torch.ones_like(tokens)
        learned[: len(self.generation_prompt)] = 0
        return tokens, learned, torch.ones_like(tokens), {}

    def sanity_check(self, *_: Any) -> None:
        """Nothing: verl's expects the whole text to be the template's."""
