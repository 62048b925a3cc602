"""Devices that a recipe names and that are not there, with a real Ray cluster on this machine."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from rilbench.config import load_recipe
from rilbench.data.question_files import read_questions, write_questions
from rilbench.devices import gpus, has_gpu
from rilbench.errors import UserError
from rilbench.paths import locate
from rilbench.plan.servers import starts_judge
from rilbench.train.pipeline.preflight import check_judge
from rilbench.train.pipeline.started_servers import training_gpus
from rilbench.train.verl.config import overrides
from rilbench.train.verl.ray_devices import check_devices, ray_cpus, ray_nodes

RAY = Path(sys.executable).parent / "ray"
SMI = """#!/bin/sh
printf 'NVIDIA A100, with a comma, 81920, 550.54\\n%.0s' {numbers}
exit {status}
"""


def recipe(*settings, student="qwen2.5-vl-7b"):
    return load_recipe("72b", student, None, settings)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Pretend that nvidia-smi lists so many GPUs."""

    def listing(number, status=0):
        tool = tmp_path / "nvidia-smi"
        numbers = " ".join(map(str, range(number)))
        tool.write_text(SMI.format(numbers=numbers, status=status) if number else "#!/bin/sh\n")
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return listing


def cluster_of(*gpus, cpus=64):
    """Nodes with so many GPUs, and the CPUs of each."""
    return [(number, cpus) for number in gpus]


def test_gpus_are_those_that_are_visible(driver, monkeypatch):
    driver(2)
    assert [(g.name, g.memory_gib) for g in gpus()] == [("NVIDIA A100, with a comma", 80)] * 2
    for visible, number in (("1", 1), ("", 0), ("-1", 0), ("0,1", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert len(gpus()) == number, visible
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    driver(2, status=9)
    assert not has_gpu(), "the driver is broken"


def test_more_devices_than_there_are(driver):
    driver(8)
    check_devices(recipe())
    check_devices(recipe(student="nano"))
    driver(4)
    with pytest.raises(UserError, match=r"8 GPUs and this machine has 4; set hardware\.devices=4"):
        check_devices(recipe())
    driver(8)
    with pytest.raises(UserError, match=r"needs 16 GPUs on 2 nodes.*--ray-address"):
        check_devices(recipe("hardware.nodes=2"))
    driver(0)
    with pytest.raises(UserError, match=r"has none; without a GPU: .*--student nano"):
        check_devices(recipe())


def test_gpus_that_have_no_bf16_are_refused(tmp_path, monkeypatch):
    """A T4 has 16 GB, and would be found out by vLLM behind the collection."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase $1 in *compute_cap*) echo 7.5;; *) echo 'T4, 15360, 5';; esac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    small = load_recipe("72b", "internvl3-1b", None, [], "1-gpu-16gb")
    with pytest.raises(UserError, match=r"T4 has compute capability 7\.5, .* needs 8 \(Ampere\)"):
        check_devices(small)
    tool.write_text(tool.read_text().replace("7.5", "8.6"))
    check_devices(small)


def test_teachers_that_score_have_devices_of_their_own(driver, monkeypatch):
    driver(8)
    distilled = ("method=opd", "hardware.devices=4", "hardware.teacher_devices=4")
    check_devices(recipe(*distilled))
    driver(4)
    with pytest.raises(UserError, match=r"set hardware\.judge_devices or .*teacher_devices lower"):
        check_devices(recipe(*distilled))
    on_ray = [*distilled, "hardware.ray_address=1.2.3.4:5", "judge.model=parser"]
    monkeypatch.setattr("rilbench.train.verl.ray_devices.ray_nodes", lambda _: cluster_of(4.0, 3.0))
    with pytest.raises(UserError, match=r"needs 8 GPUs and Ray .* has 7 \(by node: 4, 3\)"):
        check_devices(recipe(*on_ray))
    for nodes in ([8.0], [4.0, 4.0]):
        monkeypatch.setattr(
            "rilbench.train.verl.ray_devices.ray_nodes", lambda _, n=nodes: cluster_of(*n)
        )
        check_devices(recipe(*on_ray))
    with pytest.raises(UserError, match="teacher_devices changes nothing with method=ril"):
        recipe("hardware.teacher_devices=4")


def test_a_judge_that_is_started_leaves_the_teachers_their_devices(monkeypatch):
    """Trainer and teachers are in one Ray, the judge has the last devices."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    settings = ("method=opd", "hardware.devices=4", "hardware.teacher_devices=2")
    judged = recipe(*settings, "hardware.judge_devices=2")
    assert starts_judge(judged)
    assert training_gpus(judged) == {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}


def test_a_rule_based_judge_is_not_reached_by_other_nodes():
    with pytest.raises(UserError, match=r"judge.url"):
        check_judge(recipe("hardware.nodes=2", student="nano"))


def test_a_cluster_takes_no_settings_of_its_own():
    there = recipe("hardware.ray_address=10.0.0.1:6379", student="nano")
    settings = overrides(there, Path("r"), "m", resume_from=None)
    assert [s for s in settings if "ray_kwargs" in s] == [
        "+ray_kwargs.ray_init.address='10.0.0.1:6379'"
    ]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The address of a Ray cluster of one node with two GPUs, as it is told."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of the head and of those who join
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # Of its own and short: Ray's sockets allow no long path, and another cluster has its own place.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place:
        command = [
            *(str(RAY), "start", "--head", f"--port={port}", "--num-gpus=2", "--num-cpus=16"),
            *("--include-dashboard=false", "--disable-usage-stats", "--block"),
            *(f"--temp-dir={place}", "--object-store-memory=500000000"),
        ]
        with (tmp_path / "log").open("wb") as log:
            head = psutil.Popen(command, stdout=log, stderr=log)
        address = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert head.poll() is None, (tmp_path / "log").read_text()
            try:
                ray_nodes(address)
                break
            except UserError:
                time.sleep(1)
        parts = head.children(recursive=True)
        yield address
        head.terminate()
        psutil.wait_procs([head, *parts], timeout=20)
        for part in parts:
            if part.is_running():
                part.kill()


@pytest.mark.timeout(300)
def test_a_ray_cluster_is_asked_for_its_gpus(cluster):
    assert ray_nodes(cluster) == [(2, 16)]
    check_devices(recipe(f"hardware.ray_address={cluster}", "hardware.devices=2"))
    with pytest.raises(UserError, match=rf"8 GPUs and Ray at {cluster} has 2 \(by node: 2\)"):
        check_devices(recipe(f"hardware.ray_address={cluster}"))


def test_no_cluster_at_an_address():
    with pytest.raises(UserError, match=r"no Ray cluster.*ray start --head"):
        check_devices(recipe("hardware.ray_address=127.0.0.1:1"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_on_a_cluster_that_is_there(cluster, tmp_path):
    """The real trainer; the cluster outlives it."""
    questions = tmp_path / "questions.parquet"
    write_questions(questions, read_questions(locate("nano:prompts.parquet"))[:4])
    settings = {"data.train": questions, "data.dev": questions, "schedule.prompts_per_step": 2}
    settings |= {"schedule.save_every": 1}
    command = [str(RAY.parent / "rilbench"), "train", "--recipe", "both", "--student", "nano"]
    command += ["--method", "dr-grpo", "--run", "r", "--steps", "1", "--ray-address", cluster]
    command += [part for k, v in settings.items() for part in ("--set", f"{k}={v}")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    assert ray_nodes(cluster) == [(2, 16)]


def test_ray_has_the_cpus_that_the_runs_processes_reserve(monkeypatch, tmp_path):
    """Fewer, and TransferQueue or verl's pool would wait for ever, behind the collection."""
    one = load_recipe("72b", "qwen2.5-vl-3b", None, [], "1-gpu-80gb")
    assert ray_cpus(one) == 8 + 1 + 3
    assert ray_cpus(recipe()) == 8 + 1 + 3 * 8
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for asked, least in ((one, 16), (recipe(), 33)):
        assert f"ray_kwargs.ray_init.num_cpus={least}" in overrides(
            asked, tmp_path, "m", resume_from=None
        )
    monkeypatch.setattr(
        "rilbench.train.verl.ray_devices.ray_nodes", lambda _: cluster_of(8.0, cpus=32)
    )
    on_ray = ("hardware.ray_address=auto",)
    with pytest.raises(UserError, match=r"needs 33 of Ray's CPUs.*has 32.*--num-cpus"):
        check_devices(recipe(*on_ray))
