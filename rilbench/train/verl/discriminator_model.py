"""The discriminator: the student's own decoder with a d × 1 head in place of the language head.

METHOD: architecture and initial parameters of the student; a linear layer on the last layer's
hidden state of the final token, then a sigmoid. It reads text only, so the vision tower is left
out. It is a class of ours and not the stock one, because verl patches Qwen's vision-language class
for the whole process and feeds dummy pixels to rows without an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import TokenClassifierOutput


class DiscriminatorConfig(PretrainedConfig):  # type: ignore[misc]
    """By which transformers, and so verl, builds a `Discriminator` from a student's checkpoint."""

    model_type = "ril_discriminator"
    student: Any = None

    @classmethod
    def of(cls, student: PretrainedConfig) -> DiscriminatorConfig:
        """The discriminator of a student; there is no language head whose weights could be tied."""
        return cls(student=student, tie_word_embeddings=False, architectures=["Discriminator"])


class Discriminator(PreTrainedModel):  # type: ignore[misc]
    """Decoder and scalar head; the logit of D(o) stands at the last token of a row."""

    config_class = DiscriminatorConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, body: PreTrainedModel) -> None:
        super().__init__(body.config)
        self.body = body
        self.score = nn.Linear(body.config.hidden_size, 1, bias=False)
        self._no_split_modules = body._no_split_modules  # FSDP wraps by these names
        ropes = getattr(body.config, "rope_parameters", None) or {}
        self.mrope = "mrope_section" in ropes

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        shared_prompts: Any = None,
        **_: Any,
    ) -> TokenClassifierOutput:
        """Return logits (B, T, 1) of rows of text; only the last token's is used.

        ``shared_prompts`` is for `rilbench.train.verl.shared_prompts`.

        Positions are (B, T). A decoder with M-RoPE gets them as it gets those of a text from verl:
        a row for text and three for M-RoPE, all equal. With fewer, packed rows leak into each
        other.
        """
        if self.mrope and position_ids is not None:
            position_ids = position_ids.expand(4, -1, -1)
        hidden = self.body(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
            **({} if shared_prompts is None else {"shared_prompts": shared_prompts}),
        ).last_hidden_state
        return TokenClassifierOutput(logits=self.score(hidden))

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        """How experts are computed is the decoder's; transformers looks for it in this file."""
        return True

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str,
        *_: Any,
        config: DiscriminatorConfig,
        torch_dtype: torch.dtype,
        **__: Any,
    ) -> Discriminator:
        """Build it from a student's checkpoint, as verl asks transformers to.

        Where new parameters are on the meta device (verl's ranks above 0, which get theirs from
        rank 0), nothing is read.

        Raises:
            ValueError: some of the student's weights are missing from the checkpoint. (Loading by
                another class name than the checkpoint's loads nothing and only warns.)
        """
        if nn.Linear(1, 1).weight.is_meta:
            student = AutoModelForImageTextToText.from_config(config.student, dtype=torch_dtype)
            model = cls(student.get_decoder())
            model.to(torch_dtype)
            return model
        path = pretrained_model_name_or_path
        student, report = AutoModelForImageTextToText.from_pretrained(
            path, config=config.student, dtype=torch_dtype, output_loading_info=True
        )
        missing = [key for key in report["missing_keys"] if "lm_head" not in key]
        if missing:
            raise ValueError(
                f"{path} lacks {len(missing)} weights of its own architecture, such as "
                f"{missing[0]}; the discriminator would start from random weights"
            )
        model = cls(student.get_decoder())
        model.to(torch_dtype)
        generator = torch.Generator().manual_seed(0)
        nn.init.normal_(model.score.weight, std=0.02, generator=generator)
        return model


AutoModelForImageTextToText.register(DiscriminatorConfig, Discriminator)


def load_discriminator(path: str, *, dtype: torch.dtype, attention: str) -> Discriminator:
    """Build the discriminator from a student's checkpoint; see `Discriminator.from_pretrained`."""
    student = AutoConfig.from_pretrained(path, attn_implementation=attention)
    config = DiscriminatorConfig.of(student)
    return Discriminator.from_pretrained(path, config=config, torch_dtype=dtype)
