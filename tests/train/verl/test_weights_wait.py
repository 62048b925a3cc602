"""A vLLM that failed while it took the weights ends the run instead of holding it up for ever."""

import asyncio
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import verl
import zmq

from rilbench.errors import UserError
from rilbench.train.verl import workers
from rilbench.train.verl.workers import PolicyWorker

# The file alone: its package needs vLLM.
_FILE = Path(verl.__file__).parent / "workers/rollout/vllm_rollout/bucketed_weight_transfer.py"


@pytest.fixture
def sender_class():
    """verl's sender of weights."""
    spec = spec_from_file_location("bucketed_weight_transfer", _FILE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BucketedWeightSender


def test_a_sampler_that_does_not_answer_is_an_error(sender_class, tmp_path):
    async def update_weights(weights, **_):
        sender = sender_class(f"ipc://{tmp_path}/weights", bucket_size_mb=1, use_shm=True)
        await sender.async_send_weights(weights)

    worker = object.__new__(PolicyWorker)
    worker.config = SimpleNamespace(
        rollout=SimpleNamespace(
            checkpoint_engine=SimpleNamespace(backend="naive"),
            free_cache_engine=False,
            get=lambda *_: "vllm",
        )
    )
    worker.layered_summon, worker.peft_merge, worker.base_sync_done = False, False, True
    worker.actor = SimpleNamespace(
        engine=SimpleNamespace(
            get_per_tensor_param=lambda **_: (iter([("a", torch.ones(3))]), None),
            is_param_offload_enabled=False,
        )
    )
    worker.rollout = SimpleNamespace(update_weights=update_weights)
    workers.limit_weights_wait(1)
    with pytest.raises(UserError, match=r"vLLM did not take .* its own error is above"):
        asyncio.run(worker.update_weights(1))


def test_verl_sends_over_the_context_that_has_the_limit(sender_class, tmp_path):
    sender = sender_class(f"ipc://{tmp_path}/weights")
    assert sender.zmq_context is zmq.Context.instance()
    assert workers.WEIGHTS_WAIT < 3600
