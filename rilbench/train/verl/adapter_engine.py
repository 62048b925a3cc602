"""verl's engines with a LoRA adapter, where the model's configuration has a rank.

verl freezes the base, trains and saves the adapter, and turns it off for the reference's
log-probabilities. What its hooks do otherwise here:

- The frozen base is in the dtype that it computes in, bf16 on GPUs; the adapter stays in float32,
  as what AdamW changes. verl's ``model_dtype`` would round rotary frequencies, too, which are
  buffers: positions of a few thousand tokens would be wrong by radians.
- Merged weights are computed one at a time. verl merges in place, with all of the base copied to
  CPU memory twice before; it leaves out layers outside the decoder's blocks (as the last of the
  vision tower), and rounds to bf16 what is trained in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from verl.utils.device import get_device_id, get_device_name
from verl.utils.model import convert_weight_keys
from verl.utils.torch_dtypes import PrecisionType
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.fsdp.utils import unfuse_moe_params

from rilbench.config.lora_targets import layers_to_adapt
from rilbench.train.verl.lora import (
    adapt,
    adapters_of,
    base_name,
    is_adapter,
    linear_layers,
    merge,
)
from rilbench.train.verl.saved_weights import published_name


class AdapterEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """The engine of a policy; without a rank it is verl's."""

    def _build_lora_module(self, module: Any) -> Any:
        """verl's hook: the module with its adapter, before it is sharded."""
        config, mixed = self.model_config, self.engine_config.mixed_precision or {}
        adapted = adapt(
            module,
            self.adapted_layers(module),
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            seed=self.engine_config.seed,
        )
        computed_in = PrecisionType.to_dtype(mixed.get("param_dtype", "bf16"))
        for weight in adapted.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.to(computed_in)
        return adapted

    def adapted_layers(self, module: Any) -> list[str]:
        """Names of the layers that get an adapter."""
        linear = linear_layers(module, module.get_output_embeddings())
        return layers_to_adapt(linear, self.lora_targets)

    @property
    def lora_targets(self) -> list[str]:
        """The targets of the model's configuration."""
        targets = self.model_config.target_modules
        return [targets] if isinstance(targets, str) else list(targets)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """verl's hook: the base alone computes.

        peft also says meanwhile that the adapter does not train, which FSDP2 must not hear: it
        settles on the gradients' dtype at the first forward, which is the reference's. And while it
        holds a module's weights whole, as after a forward, peft would tell those alone.
        """
        self.module.reshard()
        trained = [weight for weight in self.module.parameters() if weight.requires_grad]
        with self.module.disable_adapter():
            for weight in trained:
                weight.requires_grad_(True)
            yield
            self.module.reshard()

    def get_per_tensor_param(self, **options: Any) -> tuple[Any, Any]:
        """verl's hook: the weights for the rollout engine by the base's names, merged."""
        model_type = self.model_config.hf_config.model_type
        if self._is_lora:
            # Experts one by one, as vLLM takes them.
            weights, adapter = unfuse_moe_params(self._merged(), model_type), None
        else:
            weights, adapter = super().get_per_tensor_param(**options)
        if get_device_name() == "cpu":  # transformers samples, by its own names
            return weights, adapter
        return ((published_name(name, model_type), weight) for name, weight in weights), adapter

    def _merged(self) -> Iterator[tuple[str, Tensor]]:
        weights = self.module.state_dict()
        adapters = adapters_of(weights)
        scale = self.model_config.lora_alpha / self.model_config.lora_rank
        names = {base_name(name): name for name in weights if not is_adapter(name)}
        for converted, name in convert_weight_keys(
            {base: base for base in names}, self.module
        ).items():
            weight = _whole(weights[names[name]])
            if name in adapters:
                a, b = (_whole(weights[part]) for part in adapters[name])
                weight = merge(weight, a, b, scale)
            yield converted, weight


def _whole(weight: Any) -> Tensor:
    """A weight from the shares of all ranks, on the device."""
    if isinstance(weight, DTensor):
        on_device: Any = weight.to(get_device_id(), non_blocking=True)
        weight = on_device.full_tensor()
    whole: Tensor = weight
    return whole
