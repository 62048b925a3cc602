"""verl's engines with each prompt computed once, where the model's configuration asks for it.

`rilbench.train.verl.shared_prompts` says how. verl's rows become one sequence, what verl does with
a model's output it does with that of the responses, and its results come back in verl's rows.
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
from verl.workers.engine.utils import postprocess_batch_func

from rilbench.config.layouts import LAYOUTS, Layout
from rilbench.errors import UserError
from rilbench.train.verl.adapter_engine import AdapterEngine
from rilbench.train.verl.model_families import BlankPicture, give_mean, own_forwards
from rilbench.train.verl.shared_prompts import (
    ATTENTION,
    SharedPrompts,
    cut_by_tokens,
    cut_further,
)


class SharedPromptEngine(AdapterEngine):
    """The engine of policy and reference.

    With ``share_prompts`` a batch names each row's ``question``: neighbours of one question share
    its prompt, and only the first of them needs its pictures. Without, it is verl's engine; a run
    of SFT has no groups.
    """

    shared: SharedPrompts | None = None
    """The layout of the micro-batch at work."""
    layout: Layout | None = None
    """The student's; None for the discriminator, which sees no pictures."""
    blank: BlankPicture | None = None
    predicts = True
    """Whether the head's output is of the next token, and not of the token itself."""

    @property
    def shares_prompts(self) -> bool:
        """Whether the model's configuration asks for it."""
        return bool(getattr(self.model_config, "share_prompts", False))

    def _build_module(self) -> torch.nn.Module:
        with own_forwards(self.model_config.hf_config):
            module: Any = super()._build_module()
        self.layout = LAYOUTS.get(module.config.model_type)
        if self.layout and self.layout.blanks:
            give_mean(module)
        elif self.layout and torch.distributed.get_world_size() > 1:
            self.blank = BlankPicture(module, self.model_config.processor)
        if self.shares_prompts:
            decoder, head = self.parts(module)
            others = set(getattr(decoder.config, "layer_types", ())) - {"full_attention"}
            if others:
                raise UserError(
                    f"a student with layers of {', '.join(sorted(others))} cannot share prompts; "
                    "set hardware.share_prompts=false"
                )
            decoder.set_attn_implementation(ATTENTION)
            head.register_forward_pre_hook(self._at_responses)
        built: torch.nn.Module = module
        return built

    def parts(self, module: Any) -> tuple[Any, torch.nn.Module]:
        """The decoder of a model, and its head."""
        return module.get_decoder(), module.get_output_embeddings()

    def _at_responses(self, _: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        """The head's input (1, T, H), only where its output is read: (1, n, H)."""
        assert self.shared is not None
        places = self.shared.predicting if self.predicts else self.shared.responses
        return (args[0][:, places],)

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable[..., Any], forward_only: bool = False
    ) -> Any:
        """As verl's, in micro-batches that keep a question's rows together where they fit."""
        if not self.shares_prompts:
            return super().forward_backward_batch(data, loss_function, forward_only)
        assert getattr(self, "scaler", None) is None, "no loss is scaled"
        micro_batches = self._micro_batches(data)
        tu.assign_non_tensor(data, dp_size=self.get_data_parallel_size(), use_dynamic_bsz=True)
        pictures = _pictures(data)
        outputs = []
        for number, rows in enumerate(micro_batches):
            micro_batch = tu.index_select_tensor_dict(data, rows)
            if pictures:
                kept = [pictures[row] for row in rows]
                tu.assign_non_tensor_stack(micro_batch, "multi_modal_inputs", kept)
            is_last = forward_only or number == len(micro_batches) - 1
            with (
                torch.set_grad_enabled(not forward_only),
                self._gradient_sync_context(is_last_micro_batch=is_last),
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
        if not tu.get_non_tensor_data(data, "use_dynamic_bsz", default=False):
            size = tu.get_non_tensor_data(data, "micro_batch_size_per_gpu", default=len(prompts))
            rows = list(range(len(prompts)))
            return [rows[i : i + size] for i in range(0, len(rows), size)]
        budget = tu.get_non_tensor_data(data, "max_token_len_per_gpu", default=None)
        parts = cut_by_tokens(prompts, responses, data["question"].tolist(), budget)
        number = torch.tensor(len(parts), device=get_device_name())
        torch.distributed.all_reduce(
            number, op=torch.distributed.ReduceOp.MAX, group=self.get_data_parallel_group()
        )
        return cut_further(parts, int(number))

    def prepare_model_inputs(
        self, micro_batch: TensorDict
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's hook: rows as one sequence, a question's prompt and pictures once."""
        if not self.shares_prompts:
            found: tuple[dict[str, Any], dict[str, Any]] = super().prepare_model_inputs(micro_batch)
            self._show_blank(found[0])
            if self.layout and self.layout.token_types:
                pictures = found[0]["input_ids"] == self.module.config.image_token_id
                found[0][self.layout.token_types] = pictures.int()
            return found
        ids = micro_batch["input_ids"].values()
        self.shared = SharedPrompts.of(*_lengths(micro_batch), micro_batch["question"].tolist())
        self.shared = self.shared.to(ids.device)
        source, pictures = self.shared.source, _pictures(micro_batch)
        of_prompts = [pictures[row] for row in self.shared.first_rows] if pictures else []
        inputs = {
            "input_ids": ids[source][None],
            "attention_mask": None,
            # (T,), or (4, T) with M-RoPE.
            "position_ids": micro_batch["position_ids"].values()[..., source].unsqueeze(-2),
            "shared_prompts": self.shared,
            **extract_multi_modal_inputs(of_prompts),
        }
        self._show_blank(inputs)
        responses = micro_batch["responses"].values()
        temperature = torch.tensor(float(micro_batch["temperature"]), device=ids.device)
        outputs = {
            "input_ids_rmpad_rolled": responses,
            "temperature_rmpad": temperature.expand(len(responses)),
            "temperature_is_one": bool(temperature == 1),
            "pad_size": 0,
        }
        return inputs, outputs

    def _show_blank(self, inputs: dict[str, Any]) -> None:
        """Show a blank picture where the micro-batch has none."""
        if self.blank:
            self.blank.shown = "pixel_values" not in inputs

    def prepare_model_outputs(
        self,
        output: Any,
        output_args: dict[str, Any],
        micro_batch: TensorDict,
        logits_processor_func: Any,
    ) -> dict[str, Tensor]:
        """verl's hook: what it makes of a batch without padding, here of the responses alone."""
        rows, found = micro_batch["input_ids"], micro_batch
        if self.shares_prompts:
            found = micro_batch.clone(recurse=False)
            found["input_ids"] = micro_batch["responses"]
            tu.assign_non_tensor(found, use_remove_padding=True)
        made: dict[str, Tensor] = super().prepare_model_outputs(
            output, output_args, found, logits_processor_func
        )
        if not self.shares_prompts:
            return made
        assert self.shared is not None
        places = self.shared.predicted if self.predicts else self.shared.predicted + 1
        return {name: _in_rows(value, rows, places) for name, value in made.items()}


def _in_rows(value: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Values of the responses' tokens, nested, as those of whole rows; 0 in the prompts."""
    values = value.values()
    whole = values.new_zeros(len(rows.values())).index_put((places,), values)
    nested: Tensor = torch.nested.nested_tensor_from_jagged(whole, rows.offsets())  # type: ignore[attr-defined]
    return nested


def _lengths(data: TensorDict) -> tuple[list[int], list[int]]:
    """Tokens of each row's prompt, and of its response."""
    prompts, responses = (data[name].offsets().diff().tolist() for name in ("prompts", "responses"))
    return prompts, responses


def _pictures(data: TensorDict) -> list[dict[str, Tensor]]:
    """The prepared pictures of each row: those of a question's first row are its neighbours' too.

    Empty where there are none, as in the discriminator's batch.
    """
    found: list[dict[str, Tensor]] = []
    if "multi_modal_inputs" not in data:
        return found
    questions = data["question"].tolist()
    for row, inputs in enumerate(data["multi_modal_inputs"]):
        inputs = getattr(inputs, "data", inputs)
        repeats = row > 0 and questions[row] == questions[row - 1]
        found.append(found[-1] if repeats and not inputs else inputs)
    return found
