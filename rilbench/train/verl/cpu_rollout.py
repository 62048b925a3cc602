"""Rollouts on a CPU, as verl starts them: replicas of `BatchServer`, and their weights."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import ray
import torch
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

from rilbench.model.batch_server import BatchServer
from rilbench.train.verl.workers import CPU_ROLLOUT, VLLM_CPU


class TransformersReplica(RolloutReplica):  # type: ignore[misc]
    """verl's handle on one `BatchServer`."""

    server_class: type[BatchServer] = BatchServer

    def start_server(self) -> Any:
        """Start the server's actor, or find it."""
        name = _server_name(self.replica_rank, self.name_suffix if self.is_teacher_model else "")
        options = {"name": name, "get_if_exists": True, "max_concurrency": 1000, "num_cpus": 0}
        server = ray.remote(self.server_class).options(**options)
        return server.remote(*self.server_arguments())

    def server_arguments(self) -> tuple[str, int, int]:
        """The server's model, batch size and limit of tokens."""
        return self.model_config.path, self.config.max_num_seqs, self.config.response_length

    async def init_colocated(self, resource_pool: Any) -> None:
        """A teacher's: it needs no worker on a device of its own."""
        await self.launch_servers()

    async def launch_servers(self) -> None:
        """What verl calls once its workers are ready."""
        server = self.start_server()
        self.servers, self._server_handle = [server], server
        self._server_address = f"{CPU_ROLLOUT}{self.name_suffix}:{self.replica_rank}"


def start_servers(config: Any) -> list[Any]:
    """Start the servers of a run's configuration before verl does.

    So a server imports what it needs while the trainer, TransferQueue and the workers start. On
    GPUs verl's own servers need the workers first.

    Returns:
        The actors' first handles: when these are gone, Ray ends the actors.
    """
    rollout = config.actor_rollout_ref.rollout
    if rollout.name != CPU_ROLLOUT:
        return []
    replica = RolloutReplicaRegistry.get(CPU_ROLLOUT)
    ranks = range(config.trainer.nnodes * config.trainer.n_gpus_per_node)
    model = config.actor_rollout_ref.model
    return [replica(rank, config=rollout, model_config=model).start_server() for rank in ranks]


class WeightSender(BaseRollout):  # type: ignore[misc]
    """The policy worker's end: rank r sends its weights to replica r."""

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """A CPU has nothing to free."""

    async def update_weights(
        self,
        weights: Generator[tuple[str, torch.Tensor], None, None],
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Copy the weights and hand them over."""
        copied = {name: weight.detach().cpu().clone() for name, weight in weights}
        server = ray.get_actor(_server_name(int(os.environ["RANK"])))
        await server.update_weights.remote(copied, global_steps)


def _server_name(rank: int, teacher: str = "") -> str:
    return f"rilbench_rollout{teacher}_{rank}"


def _vllm_replica() -> type[RolloutReplica]:
    from rilbench.train.verl.vllm_cpu import CpuReplica  # needs vLLM

    return CpuReplica


RolloutReplicaRegistry.register(CPU_ROLLOUT, lambda: TransformersReplica)
RolloutReplicaRegistry.register(VLLM_CPU, _vllm_replica)
