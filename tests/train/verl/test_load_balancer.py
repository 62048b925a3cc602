"""Requests are dealt to rollout servers by verl's own plug-in, in a process without verl."""

import inspect
import subprocess
import sys

import pytest
from verl.workers.rollout.router import (
    RequestLoadBalancer,
    _load_router_yaml,
    _resolve_router_class,
)

from rilbench.train.verl import load_balancer
from rilbench.train.verl.load_balancer import LoadBalancer, LoadBalancerActor


def test_the_server_with_the_fewest_requests_is_next():
    balancer = LoadBalancer({"a": 1, "b": 2}, {})
    assert [balancer.acquire_server(str(n)) for n in range(3)] == [("a", 1), ("b", 2), ("a", 1)]
    balancer.release_server("a")
    balancer.release_server("a")
    balancer.release_server("gone")
    assert balancer.acquire_server("next") == ("a", 1)
    assert balancer.get_total_inflight() == 2
    assert balancer.get_status()["servers"] == {"a": 1, "b": 1}


def test_servers_come_and_go():
    balancer = LoadBalancer({"a": 1}, {})
    balancer.acquire_server("x")
    balancer.add_servers({"b": 2})
    balancer.remove_servers(["a", "a"])
    assert balancer.get_all_servers() == ["b"]
    balancer.release_server("a")
    assert balancer.get_total_inflight() == 0
    balancer.remove_servers(["b"])
    with pytest.raises(RuntimeError, match="no rollout server"):
        balancer.acquire_server("y")


def test_verl_finds_it_and_has_all_that_it_calls():
    path = load_balancer.__file__.replace(".py", ".yaml")
    assert _resolve_router_class(_load_router_yaml(path)["router_class"]) is LoadBalancerActor
    for name, method in inspect.getmembers(RequestLoadBalancer, inspect.isfunction):
        if name.startswith("_"):
            continue
        ours = inspect.signature(getattr(LoadBalancer, name)).parameters
        theirs = inspect.signature(method).parameters
        # Ray adds a parameter of its own to the methods of a class that is made an actor.
        found = [p for p in ours if not p.startswith("_ray")]
        assert [p for p in theirs if p != "extra"] == found, name


@pytest.mark.parametrize(
    "module",
    [
        "rilbench.train.verl.load_balancer",
        # Ray loads a server's class wherever its handle is, so in the load balancer too.
        "rilbench.model.batch_server",
    ],
)
def test_its_process_imports_neither_verl_nor_torch(module):
    code = f"import sys, {module}; sys.exit(bool({{'verl', 'torch', 'pandas'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
