"""Are the devices that a recipe names there? Asked before anything is spent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from rilbench.config import Recipe
from rilbench.devices import gpus, least_capability
from rilbench.errors import UserError

BF16_CAPABILITY = 8.0
"""The CUDA compute capability from which on GPUs compute in bf16, as vLLM asks."""

# Ray in a process of its own: it would leave this one with its threads and its settings.
_ASK = """
import json, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
print("\\n" + json.dumps([(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes]))
"""


def storage_units(recipe: Recipe) -> int:
    """Processes that hold a step's rows; each moves about 1 GiB in a second of CPU time.

    verl's default, and at least its advice: two for each node. The nano models need one.
    """
    return 1 if recipe.hardware.device == "cpu" else max(8, 2 * recipe.hardware.nodes)


def ray_cpus(recipe: Recipe) -> int:
    """Ray's CPUs that the run's processes reserve; with fewer they would wait without end.

    One for each of TransferQueue's storage units and for their controller, and three for each
    device (`ResourcePoolManager.max_colocate_count` of verl).
    """
    hardware = recipe.hardware
    scoring = 0
    if recipe.method_spec.uses_teacher_log_probs:
        scoring = hardware.teacher_devices or len(recipe.teachers.names)
    return storage_units(recipe) + 1 + 3 * (hardware.ranks + scoring)


def check_devices(recipe: Recipe) -> None:
    """Refuse a recipe for more devices than there are.

    Raises:
        UserError: with what it needs and what there is; without any GPU, with the command that
            needs none.
    """
    hardware = recipe.hardware
    scoring = hardware.teacher_devices if recipe.method_spec.uses_teacher_log_probs else 0
    further = hardware.judge_devices + scoring
    number = hardware.ranks + further
    need = f"{number} GPUs"
    if hardware.nodes > 1:
        need += f" on {hardware.nodes} nodes"
    if hardware.ray_address:
        found = ray_nodes(hardware.ray_address)
        nodes = [gpus for gpus, _ in found]
        room = sorted((n - hardware.devices for n in nodes), reverse=True)
        # verl places the teachers' processes on one node, beside those that train or apart.
        left = max([*nodes[hardware.nodes :], *room[: hardware.nodes], 0])
        if sum(n >= 0 for n in room) < hardware.nodes or left < scoring:
            there = ", ".join(f"{n:g}" for n in nodes)
            raise UserError(
                f"{recipe.student.name} needs {need} and Ray at {hardware.ray_address} has "
                f"{sum(nodes):g} (by node: {there}); add nodes, or set hardware.nodes and "
                "hardware.devices to what is there"
            )
        if (cpus := sum(number for _, number in found)) < ray_cpus(recipe):
            raise UserError(
                f"{recipe.student.name} needs {ray_cpus(recipe)} of Ray's CPUs and Ray at "
                f"{hardware.ray_address} has {cpus:g}; start its nodes with ray start --num-cpus "
                "N, which may be more than there are"
            )
        return
    if hardware.device != "cuda":
        return
    there_are = len(gpus())
    if not there_are:
        raise UserError(
            f"{recipe.student.name} needs {need} of {hardware.memory_gib} GiB and this "
            "machine has none; without a GPU: rilbench train --recipe "
            f"{recipe.recipe} --student nano"
        )
    if (capability := least_capability()) is not None and capability < BF16_CAPABILITY:
        raise UserError(
            f"{gpus()[0].name} has compute capability {capability:g}, and models are trained and "
            f"sampled in bf16, which needs {BF16_CAPABILITY:g} (Ampere) or higher; use other GPUs"
        )
    if hardware.nodes > 1:
        raise UserError(
            f"{recipe.student.name} needs {need} and one machine is one node; start Ray on all of "
            "them and give --ray-address (docs/cluster.md)"
        )
    if there_are < number:
        given = {
            "the judge (hardware.judge_devices)": hardware.judge_devices,
            "the teachers (hardware.teacher_devices)": scoring,
        }
        asked = "".join(f", {n} of them for {whom}" for whom, n in given.items() if n)
        fewer = f"hardware.devices={there_are - further}"
        if there_are <= further:
            fewer = "hardware.judge_devices or hardware.teacher_devices lower"
        raise UserError(
            f"{recipe.student.name} needs {need}{asked} and this machine has {there_are}; set "
            f"{fewer}, or see docs/cluster.md for more machines"
        )


def ray_nodes(address: str, timeout: float = 120.0) -> list[tuple[float, float]]:
    """The GPUs and CPUs of each node of a Ray cluster, most GPUs first.

    Raises:
        UserError: there is none at this address.
    """
    remedy = "start it with ray start --head, or leave --ray-address out"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():  # Ray would try for a minute
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(f"no Ray cluster at {address} ({error}); {remedy}") from error
    command = [sys.executable, "-c", _ASK, address]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"no Ray cluster answers at {address} within {timeout:.0f} s; {remedy}"
        ) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if "AuthenticationError" in line]
        why = (told or lines or [f"status {done.returncode}"])[-1][:300]
        raise UserError(f"no Ray cluster at {address} ({why}); {remedy}")
    found = json.loads(done.stdout.splitlines()[-1])
    return sorted(((gpus, cpus) for gpus, cpus in found), reverse=True)
