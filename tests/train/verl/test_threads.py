"""Threads of a training process: its share of the cores, also where AdamW runs offloaded."""

import os

import pytest
import torch

from rilbench.train.verl import workers


@pytest.mark.parametrize(
    ("device", "environment", "threads"),
    [
        ("cuda", {"WORLD_SIZE": "1"}, 16),
        ("cuda", {"WORLD_SIZE": "16", "RAY_LOCAL_WORLD_SIZE": "8"}, 2),
        ("cuda", {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, 4),
        ("cuda", {"WORLD_SIZE": "32"}, 1),
        ("cpu", {"WORLD_SIZE": "1"}, 4),
        ("cpu", {"WORLD_SIZE": "8"}, 2),
    ],
)
def test_a_process_has_its_share_of_the_cores(monkeypatch, device, environment, threads):
    for name in ("RAY_LOCAL_WORLD_SIZE", "LOCAL_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(workers, "get_device_name", lambda: device)
    found = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    workers.set_threads()
    assert found == [threads]
