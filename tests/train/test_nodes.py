"""A run on two nodes that loses a process, and then a node, ends where an undisturbed run ends.

Two raylets on this machine are the nodes; each gives one (logical) GPU.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from rilbench.data.question_files import read_questions, write_questions
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.train.verl.ray_devices import ray_nodes

pytestmark = pytest.mark.timeout(2400)
BIN = Path(sys.executable).parent
STEPS = 4
SETTINGS = {
    "data.train": "questions.parquet",
    "data.dev": "questions.parquet",
    "collection.folder": "collection",
    "collection.teacher_responses": 2,
    "collection.student_responses": 1,
    "group_size": 2,
    "schedule.prompts_per_step": 4,
    "schedule.save_every": 1,
    "discriminator.pretrain_steps": 2,
    "discriminator.pretrain_batch_size": 8,
}
RELATIVE = {"policy_loss": 1e-5, "grad_norm": 1e-4, "discriminator_loss": 1e-5, "kl": 1e-4}


class Node:
    """One node of a Ray cluster: a raylet, with all that it starts."""

    def __init__(self, place, port, head=False):
        where = ["--head", f"--port={port}"] if head else [f"--address=127.0.0.1:{port}"]
        command = [BIN / "ray", "start", *where, "--block", "--num-gpus=1", "--num-cpus=16"]
        command += ["--object-store-memory=200000000"]
        command += [f"--temp-dir={place}", "--include-dashboard=false"] if head else []
        self.log = (place / f"node-{time.time_ns()}.log").open("w")
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdout=self.log,
            stderr=self.log,
            env=environment,
            start_new_session=True,
        )

    def family(self):
        return [self.process.pid, *(p.pid for p in psutil.Process(self.process.pid).children(True))]

    def worker(self):
        """The process of the rank on this node."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if "WorkerDict" in process.name() or "WorkerDict" in " ".join(process.cmdline()):
                return process.pid
        raise AssertionError("no rank on this node")

    def kill(self):
        for pid in self.family() if self.process.poll() is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


STOPPED = ("the training stopped", "questions failed", "are gone", "is gone")
"""A node is lost in an update, or while its questions are being answered."""


def wait_for_nodes(address, number):
    for _ in range(120):
        with contextlib.suppress(UserError):
            if len(ray_nodes(address)) == number:
                return
        time.sleep(1)
    raise AssertionError(f"not {number} nodes at {address}")


def command(name, *more, **settings):
    given = {**SETTINGS, **settings}
    return [
        *(str(BIN / "rilbench"), "train", "--recipe", "72b", "--student", "nano", "--run", name),
        *("--steps", str(STEPS), *more),
        *(part for key, value in given.items() for part in ("--set", f"{key}={value}")),
    ]


def metrics(run):
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run_until(place, arguments, step, strike):
    """Run; once ``step`` is done, do something to the run; return how it ended."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    with (place / "stopped.log").open("w+") as log:
        process = subprocess.Popen(arguments, cwd=place, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 600
        while len(metrics(place / "runs" / "two")) < step and process.poll() is None:
            assert time.monotonic() < deadline, (place / "stopped.log").read_text()[-3000:]
            time.sleep(0.2)
        assert process.poll() is None, (place / "stopped.log").read_text()[-3000:]
        strike()
        returncode = process.wait(timeout=300)
        log.seek(0)
        return returncode, log.read()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def judge():
    """The rule-based judge as every node can reach it: its address."""
    port = free_port()
    arguments = ["--judge", "rule", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([sys.executable, "-m", "rilbench.judge.server", *arguments])
    yield f"http://127.0.0.1:{port}/v1"
    server.terminate()
    server.wait()


@pytest.fixture
def cluster(tmp_path_factory):
    """The head, and a function that adds a node."""
    place = tmp_path_factory.mktemp("ray")
    port = free_port()
    nodes = [Node(place, port, head=True)]

    address = f"127.0.0.1:{port}"

    def add():
        nodes.append(Node(place, port))
        wait_for_nodes(address, 2)
        return nodes[-1]

    wait_for_nodes(address, 1)
    try:
        yield address, add
    finally:
        for node in reversed(nodes):
            node.kill()


def test_a_run_on_two_nodes_survives_the_loss_of_a_process_and_of_a_node(tmp_path, cluster, judge):
    write_questions(
        tmp_path / "questions.parquet", read_questions(locate("nano:prompts.parquet"))[:8]
    )
    alone = command("alone", **{"hardware.devices": 2})
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True, timeout=900)

    address, add = cluster
    node = add()
    more = ("--ray-address", address)
    settings = {"hardware.nodes": 2, "hardware.devices": 1, "judge.url": judge}
    returncode, said = run_until(
        tmp_path,
        command("two", *more, **settings),
        1,
        lambda: os.kill(node.worker(), signal.SIGKILL),
    )
    assert returncode == 1
    assert any(words in said for words in STOPPED), said
    assert "--resume" in said
    done = len(metrics(tmp_path / "runs" / "two"))
    returncode, said = run_until(
        tmp_path, command("two", "--resume", *more, **settings), max(done, 1) + 1, node.kill
    )
    assert returncode == 1
    assert any(words in said for words in STOPPED), said
    wait_for_nodes(address, 1)  # Ray notices a lost node after some seconds
    add()
    resumed = command("two", "--resume", *more, **settings)
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    last = subprocess.run(
        resumed, cwd=tmp_path, capture_output=True, text=True, timeout=900, env=environment
    )
    assert last.returncode == 0, last.stderr + last.stdout[-3000:]

    expected, found = metrics(tmp_path / "runs" / "alone"), metrics(tmp_path / "runs" / "two")
    assert [one["step"] for one in found] == list(range(1, STEPS + 1))
    for one, two in zip(expected, found, strict=True):
        for name, relative in RELATIVE.items():
            assert two[name] == pytest.approx(one[name], rel=relative, abs=1e-7), (name, two)
    weights = [
        load_file(tmp_path / "runs" / name / "checkpoint" / "model.safetensors")
        for name in ("alone", "two")
    ]
    apart = max(float(torch.max(abs(weights[0][key] - weights[1][key]))) for key in weights[0])
    assert apart < 1e-4
