"""verl's worker groups for RIL: the policy's, and the discriminator in verl's critic slot.

Loaded in every Ray process of a run. Importing it registers the engines of the discriminator (all
devices) and of the policy on a CPU.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import zmq
from tensordict import TensorDict
from verl.single_controller.base.decorator import (
    Dispatch,
    make_nd_compute_dataproto_dispatch_fn,
    register,
)
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithValueHead
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.rollout.base import _ROLLOUT_REGISTRY

from rilbench.config.lora_targets import discriminator_layers
from rilbench.errors import UserError
from rilbench.train.verl import flash_attention
from rilbench.train.verl.discriminator_model import DiscriminatorConfig
from rilbench.train.verl.freeze import freeze
from rilbench.train.verl.lora import linear_layers
from rilbench.train.verl.shared_prompt_engine import SharedPromptEngine

CPU_ROLLOUT, VLLM_CPU = "transformers", "vllm_cpu"
"""Names of the CPU's rollout engines in verl's configuration."""

WEIGHTS_WAIT = 300
"""Seconds for which vLLM may be silent while it takes the policy's weights."""

# verl names its rollout adapters in this table and has no function that adds one.
_ROLLOUT_REGISTRY[(CPU_ROLLOUT, "async")] = "rilbench.train.verl.cpu_rollout.WeightSender"
_ROLLOUT_REGISTRY[(VLLM_CPU, "async")] = "verl.workers.rollout.vllm_rollout.ServerAdapter"


class _WithoutPinnedMemory:
    """On a CPU: verl would offload the reference into pinned memory, which needs an accelerator."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> torch.nn.Module:
        engine: Any = self
        if get_device_name() != "cpu":
            return super()._build_fsdp_module(module)  # type: ignore[misc,no-any-return]
        config, forward_only = engine.engine_config, engine.engine_config.forward_only
        object.__setattr__(config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)  # type: ignore[misc,no-any-return]
        finally:
            object.__setattr__(config, "forward_only", forward_only)


@EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")
class CpuPolicyEngine(_WithoutPinnedMemory, SharedPromptEngine):
    """The engine of policy and reference, on a CPU."""


# A vendor's engine goes before verl's own, which has none.
EngineRegistry.register(
    model_type="language_model", backend=["fsdp", "fsdp2"], device="cuda", vendor=["nvidia", "amd"]
)(SharedPromptEngine)


@EngineRegistry.register(
    model_type="discriminator", backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"]
)
class DiscriminatorEngine(
    _WithoutPinnedMemory,
    SharedPromptEngine,
    FSDPEngineWithValueHead,  # type: ignore[misc]
):
    """verl's FSDP engine for a value model, around the discriminator.

    What stands before every response in its chat is the prompt that its rows share.
    """

    model_config: Any
    predicts = False

    def parts(self, module: Any) -> tuple[Any, torch.nn.Module]:
        """The decoder and the head."""
        return module.body, module.score

    def _build_module(self) -> torch.nn.Module:
        """As verl builds a policy, with weights on rank 0 alone and gradient checkpointing.

        Transformers makes it a `Discriminator`, because the configuration is one.
        """
        student = self.model_config
        self.model_config = copy.copy(student)
        self.model_config.hf_config = DiscriminatorConfig.of(student.hf_config)
        self.model_config.model_type = "language_model"  # not verl's own value models
        try:
            module: torch.nn.Module = super()._build_module()
        finally:
            self.model_config = student
        return module

    def _build_lora_module(self, module: Any) -> Any:
        """The body gets an adapter; the head, which is new, trains as it is."""
        adapted = super()._build_lora_module(module)
        # FSDP2 wants one dtype of what trains in a group.
        adapted.score.to(torch.float32).requires_grad_(True)
        return adapted

    def adapted_layers(self, module: Any) -> list[str]:
        """Those of the student's decoder, by their names in the student.

        Raises:
            UserError: ``policy.lora_targets`` name none of them.
        """
        linear = linear_layers(module, module.score)
        own = {f"model.language_model.{name.removeprefix('body.')}": name for name in linear}
        return [own[name] for name in discriminator_layers(own, self.lora_targets)]


def set_threads() -> None:
    """Set torch's threads on the CPU to this process's share of the machine's cores.

    While a model trains on a CPU, and while AdamW runs on offloaded states, nothing else runs:
    Ray's one thread would leave cores idle.
    """
    names = ("RAY_LOCAL_WORLD_SIZE", "LOCAL_WORLD_SIZE", "WORLD_SIZE")  # verl's, torchrun's
    ranks = next(int(os.environ[name]) for name in names if name in os.environ)
    # The parent's cores: verl has bound this process to the share of its device's NUMA node.
    share = len(os.sched_getaffinity(os.getppid())) // ranks
    most = 4 if get_device_name() == "cpu" else share  # small models gain nothing from more
    torch.set_num_threads(max(1, min(most, share)))


def prepare_process() -> None:
    """What a process needs before verl builds a model in it."""
    flash_attention.install()
    _meet_by_file()
    # verl would name gloo twice on a CPU, which torch refuses: start the group before it does.
    if get_device_name() == "cpu" and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo",
            init_method=os.environ.get("DIST_INIT_METHOD"),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )


def _meet_by_file() -> None:
    """Let the ranks of one node meet over a file instead of a port.

    verl picks a free port, and rank 0 listens on it many seconds later, when another process may
    have it: the run then ends with "address already in use". verl reads ``DIST_INIT_METHOD``.
    """
    world_size, group = os.environ["WORLD_SIZE"], os.environ.get("WG_PREFIX")
    if group is None or os.environ.get("RAY_LOCAL_WORLD_SIZE") != world_size:
        return
    # The prefix is verl's random name of the worker group; with its port it names one start.
    place = Path(tempfile.gettempdir()) / f"rilbench-{group}-{os.environ['MASTER_PORT']}"
    os.environ.setdefault("DIST_INIT_METHOD", place.as_uri())


def fix_positions(data: TensorDict) -> TensorDict:
    """M-RoPE's positions of a batch, (N, 4, j), nested by rows also where all have one length.

    From such rows TransferQueue makes a tensor that is nested by its second dimension, which verl
    then takes for one nested by its third.
    """
    positions, rows = data["position_ids"], data["input_ids"].offsets()
    if positions.dim() == 3 and not (
        positions.is_nested and torch.equal(positions.offsets(), rows)
    ):
        values = positions.values() if positions.is_nested else positions.flatten(0, 1)
        each = values.unflatten(0, (len(rows) - 1, -1)).unbind()
        data["position_ids"] = tu.nested_tensor_from_tensor_list(list(each))
    return data


def limit_weights_wait(seconds: int) -> None:
    """Let verl's sender of weights give up; it would wait for ever for a vLLM that has failed.

    Its sockets, and no others, are of this context.
    """
    context: Any = zmq.Context.instance()
    context.sndtimeo = context.rcvtimeo = seconds * 1000
    context.linger = 0  # nor hold up the end of the process


class PolicyWorker(ActorRolloutRefWorker):  # type: ignore[misc]
    """Policy, reference and rollout of one rank."""

    actor: Any

    def __init__(self, config: Any, role: str, **more: Any) -> None:
        super().__init__(config, role, **more)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def init_model(self) -> None:
        """Load the models of this rank."""
        prepare_process()
        set_threads()  # of the discriminator's in the same process too
        super().init_model()
        if part := self.config.get("frozen"):
            freeze(self.actor.engine.module, part)
        limit_weights_wait(WEIGHTS_WAIT)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    async def update_weights(self, global_steps: int | None = None, mode: str = "auto") -> Any:
        """Send the policy's weights to this rank's sampler.

        Raises:
            UserError: vLLM does not answer, as after an error of its own.
        """
        try:
            return await super().update_weights(global_steps, mode)
        except zmq.Again as error:
            raise UserError(
                f"vLLM did not take the policy's weights within {WEIGHTS_WAIT} s; its own error is "
                "above: often names or shapes of weights that it does not know"
            ) from error

    # As verl's; what TransferQueue makes of rows of one length is fixed first.

    @register(  # type: ignore[untyped-decorator]
        dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="ref")
    )
    def compute_ref_log_prob(self, data: TensorDict) -> TensorDict:
        """The reference's log-probabilities of a batch."""
        return super().compute_ref_log_prob(fix_positions(data))

    @register(  # type: ignore[untyped-decorator]
        dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor")
    )
    def compute_log_prob(self, data: TensorDict) -> TensorDict:
        """The policy's log-probabilities of a batch."""
        return super().compute_log_prob(fix_positions(data))

    @register(  # type: ignore[untyped-decorator]
        dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor")
    )
    def update_actor(self, data: TensorDict) -> TensorDict:
        """The policy's update on a batch."""
        return super().update_actor(fix_positions(data))


class DiscriminatorWorker(TrainingWorker):  # type: ignore[misc]
    """The discriminator on one rank."""

    def __init__(self, config: Any) -> None:
        prepare_process()
        # verl names this slot value_model; its other settings stay.
        super().__init__(dataclasses.replace(config, model_type="discriminator"))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def set_learning_rate(self, rate: float) -> None:
        """Set the optimiser's rate for the next update; verl's scheduler restores its own after."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def weights_digest(self) -> float:
        """A number that changes when the weights change: the sum of some of their absolute values.

        Vectors count whole, of a matrix its first column: all of a 7B would take seconds of a step
        where the weights are offloaded. Of this rank's rows; the ranks' sum is that of the model.
        """
        total = 0.0
        for parameter in self.engine.module.parameters():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            some = local if local.dim() < 2 else local.flatten(1)[:, 0]
            total += some.detach().double().abs().sum().item()
        return total
