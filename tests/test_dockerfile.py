"""The images' steps, as far as a machine without a container engine can take them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("gpu", "cpu")
NEW = "/rilbench"  # where the images keep the tree


def stages():
    """The instructions of each stage: (keyword, arguments)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found, name = {}, ""
    for keyword, arguments in (line.split(" ", 1) for line in lines if line.strip()):
        if keyword == "FROM":
            name = arguments.rsplit(" AS ", 1)[1]
            found[name] = []
        found[name].append((keyword, arguments))
    return found


def steps(stage, keyword):
    return [arguments for each, arguments in stages()[stage] if each == keyword]


def test_what_is_built_without_a_name_needs_no_gpu():
    assert list(stages()) == list(STAGES)  # the last is the default


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_pinned_belongs_to_nobody_special_and_says_how_it_is(stage):
    (base,) = steps(stage, "FROM")
    assert re.search(r":\d+\.\d+[^ ]* AS ", base)
    (user,) = steps(stage, "USER")
    assert user != "0"
    assert f"--uid {user} " in " ".join(steps(stage, "RUN"))
    (health,) = steps(stage, "HEALTHCHECK")
    command = health.rsplit("CMD ", 1)[1]
    assert command == '["rilbench", "doctor"]'
    order = [keyword for keyword, _ in stages()[stage]]
    assert order.index("USER") < order.index("COPY")  # what is installed is the user's own


def test_the_base_has_the_cuda_of_the_lock():
    cuda = re.search(r"nvidia/cuda:(\d+\.\d+)", steps("gpu", "FROM")[0])[1]
    lock = (ROOT / "requirements" / "gpu.lock").read_text()
    assert re.search(rf"^cuda-toolkit.*=={re.escape(cuda)}\.", lock, re.MULTILINE)
    assert re.search(r"^vllm==", lock, re.MULTILINE)


def test_both_locks_have_the_same_versions_of_what_makes_results():
    """A score of the one environment has to be a score of the other."""
    train, gpu = (
        dict(
            re.findall(
                r"^([a-z0-9_.-]+)==([^ ;]+)", (ROOT / "requirements" / each).read_text(), re.M
            )
        )
        for each in ("train.lock", "gpu.lock")
    )
    for package in (
        "torch",
        "torchvision",
        "transformers",
        "verl",
        "ray",
        "tensordict",
        "tokenizers",
    ):
        assert train[package] == gpu[package], package


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs Debian's or Ubuntu's apt")
def test_its_packages_exist(stage):
    (install,) = (step for step in steps(stage, "RUN") if "apt-get" in step)
    packages = install.split("--no-install-recommends", 1)[1].split("&&")[0].split()
    if not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
        pytest.skip("apt has no lists; apt-get update")
    for package in packages:
        shown = subprocess.run(["apt-cache", "show", package], capture_output=True, check=False)
        assert shown.returncode == 0, package


def tree(folder):
    """What the image gets: all that is committed, and .git; .dockerignore leaves out neither."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    ignored = (ROOT / ".dockerignore").read_text().split()
    held = subprocess.run(
        ["git", "ls-files"], cwd=folder, capture_output=True, text=True, check=True
    )
    for pattern in ignored:
        assert not [each for each in held.stdout.splitlines() if each.split("/")[0] == pattern]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stage", STAGES)
def test_its_steps_run_in_a_clean_environment(tmp_path, stage):
    """All but those of the system's own packages and users, in a home of their own."""
    place, home = tmp_path / "rilbench", tmp_path / "home"
    home.mkdir()
    tree(place)
    python = str(Path(sys.base_prefix) / "bin")
    clean = {"PATH": f"{python}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home)}
    # How this machine reaches an index stays: certificates, proxies, an index of one's own.
    kept = re.compile(r"(PIP|UV|SSL_CERT)_.*|.*_proxy", re.IGNORECASE)
    clean |= {k: v for k, v in os.environ.items() if kept.fullmatch(k)}
    built = [
        step for step in steps(stage, "RUN") if "apt-get" not in step and "useradd" not in step
    ]
    assert built
    for step in built:
        subprocess.run(["sh", "-c", step], cwd=place, env=clean, check=True)
    for assignment in steps(stage, "ENV")[0].split():
        key, value = assignment.split("=", 1)
        value = value.strip('"').replace(NEW, str(place)).replace("$PATH", clean["PATH"])
        clean[key] = value
    doctor = subprocess.run(
        ["rilbench", "doctor"], cwd=place, env=clean, capture_output=True, text=True, check=False
    )
    assert doctor.returncode == 0, doctor.stdout
    (vllm,) = [line for line in doctor.stdout.splitlines() if line.split()[1:2] == ["vllm"]]
    assert ("not installed" in vllm) == (stage == "cpu")
    (command,) = steps(stage, "CMD")
    words = re.findall(r'"([^"]*)"', command)
    shown = subprocess.run(["sh", "-c", " ".join(words)], cwd=place, env=clean, capture_output=True)
    assert b"train" in shown.stdout
