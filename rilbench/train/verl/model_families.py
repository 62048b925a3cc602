"""What differs between families of vision-language models, as verl 0.9.1 meets them.

verl's ``hf_processor`` knows a fixed list of processors, InternVL's not among them; of any other it
only warns, and goes on without images. Its ways in for ours are Hydra's ``_target_`` of the model's
configuration (`StudentModel`), which every process of verl reads its processor from, and the data
sets' ``custom_cls`` (`RLDataset`, `SFTDataset`).

Families with M-RoPE (Qwen-VL) number a picture's tokens by row and column: verl binds the model's
``get_rope_index`` to their processors, and their rows have four positions for a token. The others
count tokens as text does.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
from PIL import Image
from transformers import AutoProcessor, PreTrainedTokenizerBase
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.config import HFModelConfig

from rilbench.data.row_files import mapped_column
from rilbench.model.inputs import never_sampled
from rilbench.train.verl.config import DATASETS_CACHE


@dataclass
class StudentModel(HFModelConfig):  # type: ignore[misc]
    """verl's configuration of a model, with a processor also where verl makes none."""

    processor: Any = None
    share_prompts: ClassVar[bool] = False
    """Whether each prompt is computed once. No field: verl's vLLM server reads its own class's."""

    def __post_init__(self) -> None:
        with warnings.catch_warnings():
            # "This may affect multimodal processing": not with the processor below.
            warnings.filterwarnings("ignore", "Failed to create processor: Unsupported")
            super().__post_init__()
        if self.load_tokenizer and self.processor is None:
            self.processor = AutoProcessor.from_pretrained(
                self.local_tokenizer_path, trust_remote_code=self.trust_remote_code
            )
            assert not isinstance(self.processor, PreTrainedTokenizerBase), self.path


@dataclass
class SharedPromptModel(StudentModel):
    """The same for `rilbench.train.verl.shared_prompt_engine`: each prompt once."""

    share_prompts: ClassVar[bool] = True


def has_mrope(processor: Any) -> bool:
    """Whether rows have four positions for each token: of text, and M-RoPE's three."""
    return hasattr(processor, "get_rope_index")


class CollapseImageTokens:
    """A client of vLLM's servers for a family of which verl does not know how vLLM takes pictures.

    vLLM writes a picture's tokens itself, in the place of one mark; verl folds them for Qwen-VL.
    And verl forbids the marks in sampling by a processor that its vLLM server has not.
    """

    def __init__(self, servers: Any, processor: Any) -> None:
        self.servers, self.processor = servers, processor
        self.bias = dict.fromkeys(never_sampled(processor.tokenizer), -100.0)  # vLLM's least

    async def generate(
        self, *, prompt_ids: list[int], sampling_params: dict[str, Any], **request: Any
    ) -> Any:
        """As verl's client."""
        return await self.servers.generate(
            prompt_ids=folded(self.processor, prompt_ids),
            sampling_params={**sampling_params, "logit_bias": self.bias},
            **request,
        )


def folded(processor: Any, prompt: Sequence[int]) -> list[int]:
    """A prompt with one mark for each picture, as its text has before InternVL's processor."""
    mark = processor.image_token_id
    around = (processor.start_image_token_id, processor.end_image_token_id)
    kept: list[int] = []
    before = None
    for token in prompt:
        if token not in around and not token == mark == before:
            kept.append(token)
        before = token  # between the marks of two pictures stand the end of one and a start
    return kept


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
    """verl's data set for SFT, likewise."""

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: Any,
        config: Any,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        # verl asks the image processor for what only Qwen-VL's has: the size that it resizes by.
        known = processor if has_mrope(processor) else None
        super().__init__(parquet_files, tokenizer, config, known, max_samples)
        self.processor, self.config = processor, config

    def _build_messages(self, example: dict[str, Any]) -> Any:
        images: list[Any] = [_opened(image, self.config) for image in example[self.image_key]]
        if not has_mrope(self.processor):
            images = [image["image"] for image in images]  # verl leaves opened pictures alone
        return super()._build_messages({**example, self.image_key: images})
