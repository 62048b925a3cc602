"""Ranks of one node find each other although verl's port was taken in the meantime."""

import os
import socket
import tempfile

import pytest
import torch

from rilbench.train.verl.workers import prepare_process

GROUP = {"MASTER_ADDR": "127.0.0.1", "WG_PREFIX": "abcdef", "VERL_PLATFORM": "cpu"}


def sum_of_ranks(rank, ranks, port, place):
    """What one rank does: meet the others as verl's workers do, and add up."""
    tempfile.tempdir = str(place)
    os.environ |= {**GROUP, "MASTER_PORT": str(port), "RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(ranks), "RAY_LOCAL_WORLD_SIZE": str(ranks)}
    prepare_process()
    total = torch.tensor([rank + 1])
    torch.distributed.all_reduce(total)
    torch.save(total, place / f"rank_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_port_that_was_taken_stops_nobody(tmp_path, ranks):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        arguments = (ranks, taken.getsockname()[1], tmp_path)
        torch.multiprocessing.start_processes(sum_of_ranks, arguments, ranks, start_method="fork")
    for rank in range(ranks):
        assert torch.load(tmp_path / f"rank_{rank}.pt").item() == ranks * (ranks + 1) // 2


def test_ranks_on_several_nodes_meet_at_the_address(monkeypatch):
    for name, value in (GROUP | {"WORLD_SIZE": "2", "RAY_LOCAL_WORLD_SIZE": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.delenv("DIST_INIT_METHOD", raising=False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    prepare_process()
    assert "DIST_INIT_METHOD" not in os.environ
