"""What a rollout server of a CPU runs: one model, transformers' ``generate``, seeded sampling.

Without verl, which the server's process does not need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
)

from rilbench.train.verl.student_inputs import never_sampled, picture_inputs

if TYPE_CHECKING:
    from rilbench.train.verl.cpu_server import Request


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Turn greedy decoding into sampling by the Gumbel-max trick, one generator for each sequence.

    argmax(logits + Gumbel noise) is a sample of softmax(logits); its noise comes from its own
    seed, so it does not depend on the other sequences of its batch.
    """

    def __init__(self, seeds: list[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add noise to scores (B, V)."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7)))
        return scores + noise.to(scores.dtype)


class Nucleus(LogitsProcessor):  # type: ignore[misc]
    """Top-k, then top-p among those k: transformers' two processors without sorting all tokens."""

    def __init__(self, top_k: int, top_p: float) -> None:
        self.top_k, self.top_p = top_k, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Set the scores (B, V) of all other tokens to minus infinity."""
        k = self.top_k if 0 < self.top_k < scores.shape[1] else scores.shape[1]
        best, index = scores.topk(k)
        if self.top_p < 1:
            # As transformers: from the least likely up, what sums to 1 - p goes; the best stays.
            tail = best.softmax(-1).flip(-1).cumsum(-1).flip(-1)
            gone = tail <= 1 - self.top_p
            gone[:, 0] = False
            best = best.masked_fill(gone, -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter_(1, index, best)


class Generator:
    """A model in float32 that answers batches of requests.

    Args:
        model: its folder.
        max_tokens: length at which every response is cut.
    """

    def __init__(self, model: str, max_tokens: int) -> None:
        torch.set_num_threads(1)
        self.max_tokens = max_tokens
        self.model = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(model)
        tokenizer = self.processor.tokenizer
        self.end = tokenizer.eos_token_id
        self.pad = self.end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.forbidden = never_sampled(tokenizer)
        self.image_token = self.model.config.image_token_id

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the policy's weights; every weight of the model must be among them."""
        report = self.model.load_state_dict(weights, strict=False)
        missing = [key for key in report.missing_keys if key != "lm_head.weight"]
        assert not missing, missing
        assert not report.unexpected_keys, report.unexpected_keys
        self.model.tie_weights()

    @torch.no_grad()
    def generate(self, batch: Sequence[Request]) -> list[tuple[list[int], bool]]:
        """Responses of requests with one way of sampling: tokens, and whether it ended itself."""
        width = max(len(r.prompt) for r in batch)
        ids = torch.tensor([[self.pad] * (width - len(r.prompt)) + r.prompt for r in batch])
        extra: dict[str, Any] = {}
        images = [image for request in batch for image in request.images]
        if images:
            extra = picture_inputs(self.processor, images)
            if hasattr(self.model.base_model, "get_rope_index"):
                # Without the types, transformers gives picture tokens the positions of plain text.
                extra["mm_token_type_ids"] = (ids == self.image_token).int()
        sampling = batch[0].sampling
        to_the_limit = bool(sampling.get("ignore_eos"))
        rows = self.model.generate(
            input_ids=ids,
            attention_mask=(ids != self.pad).long(),
            do_sample=False,
            max_new_tokens=self.max_tokens,
            pad_token_id=self.pad,
            eos_token_id=None if to_the_limit else self.end,
            suppress_tokens=None,
            logits_processor=self._processors(batch),
            **extra,
        )[:, width:].tolist()
        responses = []
        for tokens in rows:
            ended = self.end in tokens and not to_the_limit
            responses.append((tokens[: tokens.index(self.end) + 1] if ended else tokens, ended))
        return responses

    def _processors(self, batch: Sequence[Request]) -> LogitsProcessorList:
        sampling = batch[0].sampling
        temperature = float(sampling.get("temperature", 1.0))
        penalty = float(sampling.get("repetition_penalty", 1.0))
        steps = LogitsProcessorList([SuppressTokensLogitsProcessor(self.forbidden)])
        if penalty != 1.0:
            steps.append(RepetitionPenaltyLogitsProcessor(penalty))
        if temperature == 0:
            return steps
        steps.append(TemperatureLogitsWarper(temperature))
        top_k, top_p = int(sampling.get("top_k", -1)), float(sampling.get("top_p", 1.0))
        if top_k > 0 or top_p < 1:
            steps.append(Nucleus(top_k, top_p))
        steps.append(SeededSampling([int(r.sampling["seed"]) for r in batch]))
        return steps
