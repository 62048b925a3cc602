"""A rollout worker keeps a question's pictures until its group is done, and no longer."""

import asyncio
from types import SimpleNamespace

import pytest
import torch

from rilbench.train.rollout import group_cache
from rilbench.train.verl import rollout_worker
from rilbench.train.verl.rollout_worker import RolloutWorker

SESSIONS = 4


class Worker(RolloutWorker):
    """Without verl's queue and models: each session decodes and prepares a question's pictures."""

    def __init__(self, fails=False):
        config = SimpleNamespace(n=SESSIONS, val_kwargs=SimpleNamespace(n=1))
        self.config = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=config))
        self.processor = SimpleNamespace()
        self.prepared, self.rows, self.decoded = {}, {}, 0
        self.kept, self.fails = [], fails

    async def _run_agent_loop(self, sampling, *, trajectory, trace, session_id, uid, **question):
        async def decode():
            self.decoded += 1
            await asyncio.sleep(0)
            if self.fails:
                raise OSError("truncated")
            return {"images": [object()]}

        media = await group_cache().get("media", uid, decode)
        output = SimpleNamespace(multi_modal_data=media)
        inputs = self._compute_multi_modal_inputs(output, torch.zeros(1))
        assert inputs == {"of": media["images"][0]}
        self.kept.append((len(self.prepared), len(group_cache().results)))


@pytest.mark.parametrize("fails", [False, True])
def test_a_groups_pictures_are_prepared_once_and_dropped_with_it(monkeypatch, fails):
    import transfer_queue as tq

    status = []

    async def put(*, key, partition_id, tag):
        status.append((key, tag["status"]))

    monkeypatch.setattr(tq, "async_kv_put", put)
    made = []
    monkeypatch.setattr(
        rollout_worker, "picture_inputs", lambda _, images: made.append(1) or {"of": images[0]}
    )

    async def run(worker):
        for i in range(30):
            await worker._run_prompt({"uid": f"u{i}"}, {}, trajectory={"validate": False})

    worker = Worker(fails)
    asyncio.run(run(worker))
    assert worker.decoded == 30
    assert len(made) == (0 if fails else 30)
    assert worker.kept == ([] if fails else [(1, 1)] * 30 * SESSIONS)
    assert (worker.prepared, group_cache().results) == ({}, {})
    ends = {"failure" if fails else "finished", "running"}
    assert {state for _, state in status} == ends
