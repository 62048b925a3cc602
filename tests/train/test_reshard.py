"""A training goes on with another number of ranks as if they had not changed."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rilbench.train.reshard import reshard_model

TRAINING = Path(__file__).parents[1] / "support" / "sharded_training.py"


def train(ranks, steps, source, out):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [str(part) for part in (ranks, steps, source, out, port)]
    processes = [
        subprocess.Popen([sys.executable, TRAINING, str(rank), *arguments]) for rank in range(ranks)
    ]
    assert [process.wait(240) for process in processes] == [0] * ranks
    return torch.load(out / "full.pt")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_weights_and_optimiser_go_on_on_another_number_of_ranks(tmp_path, before, after):
    expected = train(before, 5, "", tmp_path / "whole")
    train(before, 3, "", tmp_path / "begun")
    reshard_model(tmp_path / "begun", after, tmp_path / "cut")
    found = train(after, 2, tmp_path / "cut", tmp_path / "ended")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    start = torch.load(tmp_path / "begun" / "full.pt")
    assert any(not torch.equal(start[name], value) for name, value in found.items())
