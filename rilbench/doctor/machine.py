"""Check Python, packages, GPUs, kits and disks. torch is only imported in a subprocess."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rilbench.devices import attention_on_gpus, flash_attention_version, gpus
from rilbench.doctor.check_result import CheckResult, State
from rilbench.evaluate.data import data_folder
from rilbench.evaluate.kits.environment import environment_name, is_complete, kits_folder
from rilbench.evaluate.suite import LMMSEVAL, VLMEVALKIT, find_suite
from rilbench.resources import resource

_PACKAGES = ("torch", "torchvision", "transformers", "verl", "ray")
_CUDA = (
    "import json, torch; c = torch.cuda; print(json.dumps([torch.version.cuda, c.device_count()]))"
)
_LEAST_GIB = 2.0  # free, for every folder that is written to
_KIT_GIB = 8.0  # free, to install a kit's environment
_GIB = 1024**3


def python_and_packages() -> Iterator[CheckResult]:
    """Check Python and the packages of training against the versions that rilbench requires."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] < (3, 13):
        yield CheckResult("Python", "ok", version)
    else:
        yield CheckResult("Python", "wrong", version, "use 3.10, 3.11 or 3.12")
    for name in _PACKAGES:
        yield _package(name)
    try:
        yield CheckResult("vllm", "ok", importlib.metadata.version("vllm"))
    except importlib.metadata.PackageNotFoundError:
        remedy = "on GPUs: make setup-gpu"
        yield CheckResult("vllm", "missing", "not installed; needed to train on GPUs", remedy)


def _package(name: str) -> CheckResult:
    from packaging.requirements import Requirement

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        remedy = "pip install 'rilbench[train]'"
        return CheckResult(name, "missing", "not installed; needed to train", remedy)
    for line in importlib.metadata.requires("rilbench") or []:
        required = Requirement(line)
        allowed = required.specifier
        if required.name.lower() == name and not allowed.contains(version, prereleases=True):
            return CheckResult(name, "wrong", f"{version}, not {allowed}", "make setup")
    return CheckResult(name, "ok", version)


def devices() -> Iterator[CheckResult]:
    """Check which GPUs the driver lists, and whether torch can use them."""
    listed = gpus()
    if not listed:
        text = "none that nvidia-smi lists; the nano students need none"
        yield CheckResult("GPUs", "missing", text, "the paper's students need 8: docs/cluster.md")
        return
    kinds = dict.fromkeys(f"{gpu.name} {gpu.memory_gib:.0f} GiB" for gpu in listed)
    yield CheckResult("GPUs", "ok", f"{len(listed)}: {', '.join(kinds)}; driver {listed[0].driver}")
    if importlib.util.find_spec("torch") is not None:
        yield _cuda(len(listed))
        yield attention()


def attention() -> CheckResult:
    """Check which attention would train on GPUs, and that flash-attn imports if it is installed."""
    found = attention_on_gpus()
    if flash_attention_version() is not None:
        command = [sys.executable, "-c", "import flash_attn"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
            remedy = (
                "compile it for this torch, or uninstall it: torch's own attention is used then"
            )
            return CheckResult("attention", "wrong", f"{found} does not import ({why})", remedy)
    return CheckResult("attention", "ok", found)


def _cuda(number: int) -> CheckResult:
    remedy = "install the torch build for your CUDA, or a newer driver"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CUDA], capture_output=True, text=True, timeout=120, check=False
        )
        cuda, usable = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return CheckResult("CUDA", "wrong", "torch did not answer within 120 s", remedy)
    except (ValueError, LookupError):
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        return CheckResult("CUDA", "wrong", f"torch does not start ({why})", "make setup")
    if cuda is None:
        return CheckResult("CUDA", "wrong", "torch was built without it", remedy)
    state: State = "ok" if usable == number else "wrong"
    text = f"{cuda}; torch can use {usable} of {number} GPUs"
    return CheckResult("CUDA", state, text, "" if state == "ok" else remedy)


def kits() -> Iterator[CheckResult]:
    """Check the environments of the evaluation toolkits."""
    for kit in (VLMEVALKIT, LMMSEVAL):
        home = kits_folder() / environment_name(kit, resource(f"requirements/{kit}.lock"))
        if is_complete(home):
            yield CheckResult(kit, "ok", str(home))
        else:
            remedy = f"the first evaluation installs it, or rilbench kits install {kit}"
            yield CheckResult(kit, "missing", "its environment is not installed", remedy)


def disks() -> Iterator[CheckResult]:
    """Check free space and write access for runs, kits and data."""
    installed = all(kit.state == "ok" for kit in kits())
    yield _disk("disk for runs", Path("runs"), _LEAST_GIB)
    yield _disk("disk for kits", kits_folder(), _LEAST_GIB if installed else _KIT_GIB)
    data = data_folder(find_suite("paper"))
    yield _disk("disk for data", data, _LEAST_GIB)
    if not any(data.glob("*.tsv")):
        remedy = "get them with rilbench data download"
        yield CheckResult("data of the paper's suite", "missing", f"none in {data}", remedy)
    else:
        yield CheckResult("data of the paper's suite", "ok", f"{data}: see rilbench data check")


def _disk(name: str, place: Path, least: float) -> CheckResult:
    folder = place.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return CheckResult(
            name, "wrong", f"{folder} cannot be written to", "change its permissions"
        )
    free = shutil.disk_usage(folder).free / _GIB
    if free < least:
        return CheckResult(
            name, "wrong", f"{free:.1f} GiB free at {folder}", f"make {least:g} GiB free"
        )
    return CheckResult(name, "ok", f"{free:.0f} GiB free at {folder}")
