"""The doctor as a user meets it, and each of its findings on a machine that is made so."""

import json
import subprocess
import sys

import pytest
from command import refused, run
from fake_judge import fake_judge, says
from strict_api import strict_api

from rilbench.doctor import machine
from rilbench.doctor import servers as reach
from rilbench.doctor.check_result import attempt
from rilbench.errors import UserError


def doctor(folder, *arguments, **environment):
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", **environment}
    done = run("doctor", "--format", "json", *arguments, cwd=folder, **environment)
    return done, {each["name"]: each for each in json.loads(done.stdout)}


def test_a_machine_without_gpu_and_network_is_not_wrong(tmp_path):
    done, found = doctor(tmp_path, RILBENCH_KITS=str(tmp_path / "kits"))
    assert done.returncode == 0, done.stdout
    assert found["Python"]["state"] == found["torch"]["state"] == found["ray"]["state"] == "ok"
    assert found["torch"]["found"].startswith("2.11.0")
    assert found["hub"]["state"] == "missing"
    for kit in ("vlmevalkit", "lmms-eval"):
        assert found[kit]["state"] == "missing"
        assert f"rilbench kits install {kit}" in found[kit]["remedy"]
    assert found["RILBENCH_JUDGE_KEY"]["state"] == "missing"
    assert all(each["remedy"] for each in found.values() if each["state"] == "wrong")
    assert list(tmp_path.iterdir()) == [], "it only looks"


def test_servers_and_keys(tmp_path):
    keys = {"RILBENCH_JUDGE_KEY": "sk-judge-7", "RILBENCH_ENDPOINT_KEY": "sk-end-8"}
    with fake_judge(lambda _: says("B"), ["qwen"]) as there:
        good = ("--judge", f"qwen@{there.url}", "--endpoint", there.url)
        done, found = doctor(tmp_path, *good, **keys)
        assert done.returncode == 0, done.stdout
        assert found["judge"]["found"] == f"{there.url} serves qwen"
        assert found["endpoint"]["state"] == found["RILBENCH_JUDGE_KEY"]["state"] == "ok"
        bad = ("--judge", f"other@{there.url}", "--endpoint", "http://127.0.0.1:9/v1")
        failed, found = doctor(tmp_path, *bad, **keys)
    assert failed.returncode == 1
    assert found["judge"]["state"] == found["endpoint"]["state"] == "wrong"
    assert "serves qwen, not other" in found["judge"]["found"]
    assert found["endpoint"]["remedy"] == "start it, or give another"
    assert "sk-" not in done.stdout + done.stderr + failed.stdout + failed.stderr


def test_the_inputs_of_a_recipe(tmp_path):
    nano = ("--recipe", "both", "--student", "nano")
    done, found = doctor(tmp_path, *nano)
    assert done.returncode == 0, done.stdout
    assert found["recipe: judge"]["found"] == "the project's own rules"
    assert {f"recipe: teachers.models.{name}" for name in ("72b", "78b")} <= set(found)
    with fake_judge(lambda _: says("B"), ["Qwen/Qwen2.5-VL-72B-Instruct"]) as teacher:
        settings = (
            *("--set", f"collection.endpoints.72b={teacher.url}"),
            *("--set", "data.train=none.parquet", "--set", "hardware.ray_address=127.0.0.1:9"),
        )
        done, found = doctor(tmp_path, "--recipe", "72b", *settings)
    assert done.returncode == 1
    states = {name: each["state"] for name, each in found.items() if name.startswith("recipe")}
    assert states == {
        "recipe: devices": "wrong",
        "recipe: student.model": "wrong",
        "recipe: data.train": "wrong",
        "recipe: data.dev": "wrong",
        "recipe: 72b": "ok",
        "recipe: judge": "wrong",
    }
    assert "no Ray cluster" in found["recipe: devices"]["found"]
    assert "judge.url" in found["recipe: judge"]["remedy"] + found["recipe: judge"]["found"]
    assert found["recipe: data.train"]["remedy"].endswith("--set data.train=PATH")
    assert found["recipe: data.dev"]["remedy"] == "give one with --set data.dev=PATH"
    distilled = ("--method", "opd", "--set", "hardware.teacher_devices=1")
    _, found = doctor(tmp_path, "--recipe", "78b", "--hardware", "1-gpu-24gb", *distilled)
    assert "2 GPUs of 24 GiB" in found["recipe: devices"]["found"]
    assert "--set teachers.models.78b=PATH" in found["recipe: teachers.models.78b"]["remedy"]
    refused(run("doctor", "--student", "nano", cwd=tmp_path), "--recipe")
    refused(run("doctor", "--recipe", "7b", cwd=tmp_path), "72b, 78b, both")


def test_lines_for_people(tmp_path):
    done = run("doctor", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("✓ Python")
    assert any(line.startswith("· hub") and "; download" in line for line in lines)


def test_it_imports_no_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['rilbench', 'doctor']\n"
        "from rilbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'verl', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr.strip() == "[]"


def test_another_version_than_the_pinned_is_wrong(monkeypatch):
    versions = {"torch": "2.4.0", "verl": "0.9.1"}
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: versions[name])
    found = machine._package("torch")
    assert (found.state, found.found) == ("wrong", "2.4.0, not <2.14,>=2.11")
    assert machine._package("verl").state == "ok"


def test_gpus_that_torch_cannot_use_are_wrong(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'NVIDIA H100, 81559, 550.54\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(machine, "_CUDA", "print('[null, 0]')")
    listed, cuda, *_ = machine.devices()
    assert listed.found == "1: NVIDIA H100 80 GiB; driver 550.54"
    assert (cuda.state, cuda.found) == ("wrong", "torch was built without it")
    for code, state in (('["12.8", 0]', "wrong"), ('["12.8", 1]', "ok")):
        monkeypatch.setattr(machine, "_CUDA", f"print('{code}')")
        assert [each.state for each in machine.devices()][:2] == ["ok", state]
    monkeypatch.setattr(machine, "_CUDA", "import nothing_of_that_name")
    assert "nothing_of_that_name" in list(machine.devices())[1].found


def test_a_full_or_closed_disk_is_wrong(tmp_path, monkeypatch):
    assert machine._disk("d", tmp_path / "a" / "b", 0.0).state == "ok"
    full = machine._disk("d", tmp_path, 1e9)
    assert full.state == "wrong"
    assert "GiB free" in full.remedy
    monkeypatch.setattr(machine.os, "access", lambda *_: False)
    assert "cannot be written" in machine._disk("d", tmp_path, 0.0).found


def test_an_error_is_split_at_its_remedy():
    def fail():
        raise UserError("it is so; do this; or that")

    found = attempt("x", fail)
    assert (found.state, found.found, found.remedy) == ("wrong", "it is so", "do this; or that")


@pytest.mark.parametrize("option", ["nowhere", "m@"])
def test_a_malformed_address_is_refused(option):
    assert "MODEL@URL" in reach.server("judge", option, lambda _: "none", "x").remedy


def test_an_api_without_a_list_of_models_and_a_teachers_own_key(monkeypatch):
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY_72B", "sk-own-9")
    with strict_api("flash", "sk-own-9", lambda _: "yes") as api:
        named = reach.server("recipe: 72b", f"flash@{api.url}", lambda _: "sk-own-9", "start it")
        bare = reach.server("endpoint", api.url, lambda _: "sk-own-9", "name the model")
    assert (named.state, named.found) == ("ok", f"{api.url} answers, and lists no models")
    assert bare.state == "wrong"
    keys = list(reach.keys())
    assert ("RILBENCH_ENDPOINT_KEY_72B", "ok") in [(key.name, key.state) for key in keys]
