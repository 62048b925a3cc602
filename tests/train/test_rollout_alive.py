"""A run does not wait for nodes and rollout workers that are gone; without a cluster."""

from types import SimpleNamespace

import pytest
import ray

from rilbench.errors import UserError
from rilbench.train.verl import rollout_worker
from rilbench.train.verl.rollout_worker import RolloutManager


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes, and a worker that answers; a test changes them."""
    state = SimpleNamespace(alive={"a": True, "b": True}, answers=True, pings=0)

    def nodes():
        return [{"NodeID": name, "Alive": alive} for name, alive in state.alive.items()]

    def get(refs):
        if refs and not state.answers:
            raise ray.exceptions.ActorDiedError

    def ping():
        state.pings += 1
        return f"ping {state.pings}"

    fake = SimpleNamespace(
        nodes=nodes, get=get, exceptions=ray.exceptions, wait=lambda refs, **_: (list(refs), [])
    )
    monkeypatch.setattr(rollout_worker, "ray", fake)
    monkeypatch.setattr(rollout_worker, "LOOK_SECONDS", 0)
    manager = RolloutManager.__new__(RolloutManager)
    manager.nodes, manager.pings, manager.looked_at = {"a", "b"}, [], 0.0
    manager.agent_loop_workers = [SimpleNamespace(__ray_ready__=SimpleNamespace(remote=ping))]
    return manager, state


def test_what_is_there_is_asked_again_and_again(cluster):
    manager, state = cluster
    for _ in range(3):
        manager.check_alive()
    assert state.pings == 3


def test_a_node_that_is_gone_stops_the_run(cluster):
    manager, state = cluster
    manager.check_alive()
    state.alive["b"] = False
    with pytest.raises(UserError, match=r"1 of 2 nodes of the Ray cluster are gone; .* --resume"):
        manager.check_alive()


def test_a_worker_that_is_gone_stops_the_run(cluster):
    manager, state = cluster
    manager.check_alive()
    state.answers = False
    with pytest.raises(UserError, match=r"a rollout worker is gone .* --resume"):
        manager.check_alive()


def test_it_looks_every_few_seconds_only(cluster, monkeypatch):
    manager, state = cluster
    manager.check_alive()
    monkeypatch.setattr(rollout_worker, "LOOK_SECONDS", 60)
    state.alive["b"] = False
    manager.check_alive()
