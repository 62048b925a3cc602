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
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput


class Discriminator(PreTrainedModel):  # type: ignore[misc]
    """Decoder and scalar head; the logit of D(o) stands at the last token of a row."""

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
        **_: Any,
    ) -> TokenClassifierOutput:
        """Return logits (B, T, 1) of rows of text; only the last token's is used.

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
        ).last_hidden_state
        return TokenClassifierOutput(logits=self.score(hidden))


def load_discriminator(
    path: str, *, dtype: torch.dtype, attention: str, seed: int = 0
) -> Discriminator:
    """Build the discriminator from a student's checkpoint.

    Raises:
        ValueError: some of the student's weights are missing from the checkpoint. (Loading by
            another class name than the checkpoint's loads nothing and only warns.)
    """
    student, report = AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, attn_implementation=attention, output_loading_info=True
    )
    missing = [key for key in report["missing_keys"] if "lm_head" not in key]
    if missing:
        raise ValueError(
            f"{path} lacks {len(missing)} weights of its own architecture, such as {missing[0]}; "
            "the discriminator would start from random weights"
        )
    model = Discriminator(student.get_decoder())
    model.to(dtype)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(model.score.weight, std=0.02, generator=generator)
    return model
