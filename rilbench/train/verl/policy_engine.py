"""verl's engine of policy and reference, with each question's prompt computed once for its group.

`rilbench.train.verl.shared_prompts` says how. What verl does with a micro-batch's logits, and what
the loss gets, is verl's: here its rows go into one sequence and its log-probabilities come back in
their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.utils.model import extract_multi_modal_inputs
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import postprocess_batch_func

from rilbench.train.verl.shared_prompts import (
    ATTENTION,
    SharedPrompts,
    cut_by_tokens,
    cut_further,
)


class SharedPromptEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's engine; where the model's configuration asks for it, prompts are shared.

    Then a batch must name each row's ``question``: neighbours with one share its prompt, and only
    the first of them needs its pictures.
    """

    shared: SharedPrompts | None = None
    """The layout of the micro-batch at work."""

    @property
    def shares_prompts(self) -> bool:
        """Whether the run asks for it; a run of SFT has no groups and does not."""
        return bool(self.model_config.get("share_prompts", False))

    def _build_module(self) -> torch.nn.Module:
        module: Any = super()._build_module()
        if self.shares_prompts:
            module.get_decoder().set_attn_implementation(ATTENTION)
            module.get_output_embeddings().register_forward_pre_hook(self._where_predicting)
        return module  # type: ignore[no-any-return]

    def _where_predicting(self, _: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """The head's input (1, T, H), only where it predicts a response's token: (1, n, H)."""
        assert self.shared is not None
        return (args[0][:, self.shared.predicting],)

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable[..., Any], forward_only: bool = False
    ) -> Any:
        """As verl's, in micro-batches that keep a question's rows together where they fit."""
        if not self.shares_prompts:
            return super().forward_backward_batch(data, loss_function, forward_only)
        assert getattr(self, "scaler", None) is None  # no half precision with loss scaling
        micro_batches = self._micro_batches(data)
        tu.assign_non_tensor(
            data, dp_size=self.get_data_parallel_size(), use_dynamic_bsz=True, sp_size=1
        )
        pictures = _pictures(data)
        outputs = []
        for number, rows in enumerate(micro_batches):
            micro_batch = tu.index_select_tensor_dict(data, rows)
            tu.assign_non_tensor_stack(
                micro_batch, "multi_modal_inputs", [pictures[row] for row in rows]
            )
            is_last = number == len(micro_batches) - 1
            with (
                torch.set_grad_enabled(not forward_only),
                self._gradient_sync_context(is_last_micro_batch=is_last or forward_only),
            ):
                loss, found = self.forward_step(
                    micro_batch, loss_function=loss_function, forward_only=forward_only
                )
                if not forward_only:
                    loss.backward()
                    found.pop("model_output")
            outputs.append(found)
        return postprocess_batch_func(output_lst=outputs, indices=micro_batches, data=data)

    def _micro_batches(self, data: TensorDict) -> list[list[int]]:
        """Rows of each micro-batch: as many micro-batches on every rank."""
        prompts, responses = _lengths(data)
        questions = data["question"].tolist()
        if not tu.get_non_tensor_data(data, "use_dynamic_bsz", default=False):
            size = tu.get_non_tensor_data(data, "micro_batch_size_per_gpu", default=len(prompts))
            rows = list(range(len(prompts)))
            return [rows[i : i + size] for i in range(0, len(rows), size)]
        budget = tu.get_non_tensor_data(data, "max_token_len_per_gpu", default=None)
        parts = cut_by_tokens(prompts, responses, questions, budget)
        number = torch.tensor(len(parts), device=get_device_name())
        torch.distributed.all_reduce(
            number, op=torch.distributed.ReduceOp.MAX, group=self.get_data_parallel_group()
        )
        return cut_further(parts, int(number))

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's hook: rows as one sequence, a question's prompt and pictures once."""
        if not self.shares_prompts:
            found: tuple[dict[str, Any], dict[str, Any]] = super().prepare_model_inputs(micro_batch)
            return found
        ids = micro_batch["input_ids"].values()
        self.shared = SharedPrompts.of(*_lengths(micro_batch), micro_batch["question"].tolist())
        self.shared = self.shared.to(ids.device)
        source = self.shared.source
        pictures = micro_batch["multi_modal_inputs"]
        responses = micro_batch["responses"].values()
        temperature = torch.tensor(float(micro_batch["temperature"]), device=ids.device)
        inputs = {
            "input_ids": ids[source][None],
            "attention_mask": None,
            # (T,), or (4, T) with M-RoPE.
            "position_ids": micro_batch["position_ids"].values()[..., source].unsqueeze(-2),
            "shared_prompts": self.shared,
            **extract_multi_modal_inputs([pictures[row] for row in self.shared.pictures_of]),
        }
        outputs = {
            "input_ids_rmpad_rolled": responses,
            "temperature_rmpad": temperature.expand(len(responses)),
            "temperature_is_one": bool(temperature == 1),
            "pad_size": 0,
        }
        return inputs, outputs

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict[str, Any],
        micro_batch: TensorDict,
        logits_processor_func: Any,
    ) -> dict[str, Tensor]:
        """verl's hook: what it makes of a packed batch's logits, here of the responses alone."""
        finish = super().prepare_model_outputs
        if not self.shares_prompts:
            whole: dict[str, Tensor] = finish(
                output, output_args, micro_batch, logits_processor_func
            )
            return whole
        responses = micro_batch.clone(recurse=False)
        responses["input_ids"] = micro_batch["responses"]
        tu.assign_non_tensor(responses, use_remove_padding=True)
        found = finish(output, output_args, responses, logits_processor_func)
        assert self.shared is not None
        rows, predicted = micro_batch["input_ids"], self.shared.predicted
        return {
            name: torch.nested.nested_tensor_from_jagged(
                value.values().new_zeros(len(rows.values())).index_put((predicted,), value.values()),
                rows.offsets(),
            )
            for name, value in found.items()
        }


def _lengths(data: TensorDict) -> tuple[list[int], list[int]]:
    """Tokens of each row's prompt, and of its response."""
    prompts, responses = (data[name].offsets().diff().tolist() for name in ("prompts", "responses"))
    return prompts, responses


def _pictures(data: TensorDict) -> list[dict[str, Tensor]]:
    """The prepared pictures of each row; the rows of a question refer to those of its first."""
    found: list[dict[str, Tensor]] = []
    questions = data["question"].tolist()
    for row, inputs in enumerate(data["multi_modal_inputs"]):
        inputs = getattr(inputs, "data", inputs)
        repeats = row > 0 and questions[row] == questions[row - 1]
        found.append(found[-1] if repeats and not inputs else inputs)
    return found
