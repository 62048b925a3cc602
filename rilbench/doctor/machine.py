"""Python, its packages, GPUs and disks. torch is only imported in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rilbench.devices import gpus
from rilbench.doctor.finding import Finding, State
from rilbench.evaluate.data import data_folder
from rilbench.evaluate.kits.environment import environment_name, is_complete, kits_folder
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, find_suite
from rilbench.resources import resource

_PACKAGES = ("torch", "torchvision", "transformers", "verl", "ray")
_CUDA = (
    "import json, torch; c = torch.cuda; print(json.dumps([torch.version.cuda, c.device_count()]))"
)
_LEAST_GIB = 2.0  # of a place that anything is written to
_KIT_GIB = 8.0  # what a kit's environment takes while it is made
_GIB = 1024**3


def python_and_packages() -> Iterator[Finding]:
    """Python and what training stands on, against the versions that rilbench was installed for."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        yield Finding("Python", "ok", version)
    else:
        yield Finding("Python", "wrong", version, "use 3.10, 3.11 or 3.12")
    for name in _PACKAGES:
        yield _package(name)
    try:
        yield Finding("vllm", "ok", importlib.metadata.version("vllm"))
    except importlib.metadata.PackageNotFoundError:
        remedy = "on GPUs: make setup-gpu"
        yield Finding("vllm", "missing", "not installed; needed to train on GPUs", remedy)


def _package(name: str) -> Finding:
    from packaging.requirements import Requirement

    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "wrong", "not installed", "make setup, or uv pip install -e .")
    wanted = [Requirement(line) for line in importlib.metadata.requires("rilbench") or []]
    for each in wanted:
        if each.name.lower() == name and not each.specifier.contains(found, prereleases=True):
            return Finding(name, "wrong", f"{found}, not {each.specifier}", "make setup")
    return Finding(name, "ok", found)


def devices() -> Iterator[Finding]:
    """The GPUs that the driver lists, and whether torch can use them."""
    found = gpus()
    if not found:
        text = "none that nvidia-smi lists; the nano students need none"
        yield Finding("GPUs", "missing", text, "the paper's students need 8: docs/cluster.md")
        return
    kinds = dict.fromkeys(f"{each.name} {each.memory_gib:.0f} GiB" for each in found)
    yield Finding("GPUs", "ok", f"{len(found)}: {', '.join(kinds)}; driver {found[0].driver}")
    yield _cuda(len(found))


def _cuda(number: int) -> Finding:
    remedy = "install the torch build for your CUDA, or a newer driver"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CUDA], capture_output=True, text=True, timeout=120, check=False
        )
        cuda, usable = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return Finding("CUDA", "wrong", "torch did not answer within 120 s", remedy)
    except (ValueError, LookupError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        return Finding("CUDA", "wrong", f"torch does not start ({why})", "make setup")
    if cuda is None:
        return Finding("CUDA", "wrong", "torch was built without it", remedy)
    state: State = "ok" if usable == number else "wrong"
    text = f"{cuda}; torch can use {usable} of {number} GPUs"
    return Finding("CUDA", state, text, "" if state == "ok" else remedy)


def kits() -> Iterator[Finding]:
    """The evaluation kits' environments."""
    for kit in (VLMEVALKIT, LMMSEVAL):
        home = kits_folder() / environment_name(kit, resource(f"requirements/{kit}.lock"))
        if is_complete(home):
            yield Finding(kit, "ok", str(home))
        else:
            remedy = f"the first evaluation makes it, or rilbench kits install {kit}"
            yield Finding(kit, "missing", "its environment is not made", remedy)


def disks() -> Iterator[Finding]:
    """Room, and the right to write, where runs and kits go; and the data's place."""
    made = [find.state == "ok" for find in kits()]
    yield _disk("disk for runs", Path("runs"), _LEAST_GIB)
    yield _disk("disk for kits", kits_folder(), _LEAST_GIB if all(made) else _KIT_GIB)
    data = data_folder(find_suite("paper"))
    yield _disk("disk for data", data, _LEAST_GIB)
    if not data.is_dir():
        remedy = "rilbench eval --suite paper downloads what it can"
        yield Finding("data of the paper's suite", "missing", f"{data} is not there", remedy)
    else:
        yield Finding("data of the paper's suite", "ok", f"{data}: see rilbench data check")


def _disk(name: str, place: Path, least: float) -> Finding:
    there = place.absolute()
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        return Finding(name, "wrong", f"{there} cannot be written to", "see to its rights")
    free = shutil.disk_usage(there).free / _GIB
    if free < least:
        return Finding(name, "wrong", f"{free:.1f} GiB free at {there}", f"make {least:g} GiB free")
    return Finding(name, "ok", f"{free:.0f} GiB free at {there}")
