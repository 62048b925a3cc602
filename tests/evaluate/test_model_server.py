"""The server that eval starts for a model; a stand-in has vLLM's command line."""

import asyncio
import json
import logging
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_in_vllm import install

from rilbench import serving
from rilbench.devices import gpus
from rilbench.errors import UserError
from rilbench.evaluate.model_server import (
    InFlight,
    changing_arguments,
    layout_for,
    requests_in_flight,
    server_line,
    started_client,
)
from rilbench.evaluate.options import EvalOptions, read_options
from rilbench.serving import Sampling

MEMORY_LOG = """\
INFO api_server: vLLM API server version 0.24.0
(EngineCore_DP0 pid=7) ERROR core.py: EngineCore failed to start.
(EngineCore_DP0 pid=7) ERROR core.py: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 23.5 GiB of which 1.1 GiB is free.
Traceback (most recent call last):
  File "api_server.py", line 1, in <module>
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""  # noqa: E501  As vLLM writes it.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that has a 7B's config.json, and no weights."""
    folder = tmp_path / "seven"
    folder.mkdir()
    recipe = Path(__file__).parents[2] / "recipes/models/qwen2.5-vl-7b.json"
    (folder / "config.json").write_text(json.dumps(json.loads(recipe.read_text())["config"]))
    return folder


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvalOptions:
    """On a machine with eight GPUs, and the stand-in for vLLM."""
    install(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    return EvalOptions(
        "paper",
        tmp_path,
        tmp_path / "work",
        device="cuda",
        vllm=Path(sys.executable),
        gpus=8,
        gpu_gib=80.0,
        server_args=("--max-model-len", "16384"),
    )


def started(options: EvalOptions, model: Path) -> tuple[dict[str, Any], InFlight]:
    """The arguments with which vLLM was started, and the requests that go to it at one time."""
    log = options.work / "server.log"
    with started_client(options, model, log) as client:

        async def ask() -> str:
            async with client:
                question = [{"role": "user", "content": "Which?"}]
                return (await client.complete(question, Sampling(8))).text

        assert asyncio.run(ask()) == "said None <answer>1</answer>"
    return json.loads(log.read_text().splitlines()[0])["arguments"], InFlight(
        client.concurrency, client.most
    )


def test_a_7b_has_a_copy_on_each_of_eight_gpus(
    options: EvalOptions, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(monkeypatch, 65536)
    arguments, in_flight = started(options, model)
    assert (arguments["tensor_parallel_size"], arguments["data_parallel_size"]) == (1, 8)
    assert (arguments["max_model_len"], arguments["dtype"]) == ("16384", "auto")
    assert in_flight == InFlight(256, 1024)


def test_requests_grow_from_32_to_256_for_each_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_flight(**changes: Any) -> tuple[int, int]:
        found = requests_in_flight(EvalOptions("paper", tmp_path, tmp_path, **changes))
        return found.first, found.most

    files(monkeypatch, 65536)
    assert in_flight() == (4, 4), "transformers serve answers one at a time"
    assert in_flight(vllm=Path(sys.executable)) == (32, 256)
    one, two = "m@http://a/v1", "m@http://a/v1,http://b/v1"
    assert in_flight(endpoint=one) == (32, 256)
    assert in_flight(endpoint=two) == (64, 512)
    assert in_flight(endpoint=",".join(20 * [one])) == (256, 1024)
    assert in_flight(endpoint=one, concurrency=300) == (300, 300)
    files(monkeypatch, 256)
    assert in_flight(endpoint=two) == (64, 128), "each is an open file"
    files(monkeypatch, 64)
    assert in_flight(endpoint=two) == (64, 64)


def files(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Let a process have so many open files."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))


def test_what_one_device_does_not_hold_is_divided(options: EvalOptions, model: Path) -> None:
    def layout(**changes: Any) -> tuple[int, int, float]:
        found = layout_for(EvalOptions(**{**vars(options), **changes}), str(model))
        return found.tensor_parallel, found.data_parallel, found.start_limit

    assert layout() == (1, 8, 1800)
    assert layout(gpu_gib=16.0) == (2, 4, 1800)
    assert layout(gpu_gib=16.0, gpus=1) == (1, 1, 1800), "vLLM says that it is too small"
    assert layout(start_limit=60.0) == (1, 8, 60)
    big = "Qwen/Qwen2.5-VL-72B-Instruct"
    assert layout_for(options, big).tensor_parallel == 4
    assert layout_for(options, big).start_limit > 1800
    line = server_line(options, big)
    assert line.startswith("Qwen2.5-VL-72B-Instruct: on 8 GPUs, up within 34 min: python")
    assert line.endswith("--tensor-parallel-size 4 --data-parallel-size 2 --max-model-len 16384")
    (model / "config.json").write_text('{"model_type": "other"}')
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(100 * 10**9)  # A sparse file.
    assert layout() == (2, 4, 1800)


def test_a_start_of_240_seconds_is_waited_for(
    options: EvalOptions, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which a second is a hundredth of one."""
    clock = SimpleNamespace(
        monotonic=lambda: 100 * time.monotonic(), sleep=lambda seconds: time.sleep(seconds / 100)
    )
    monkeypatch.setattr(serving.server, "time", clock)
    monkeypatch.setenv("STAND_IN_VLLM", '{"seconds": 2.4}')
    started(options, model)
    short = EvalOptions(**{**vars(options), "start_limit": 180.0})
    with pytest.raises(UserError, match="did not answer within 180 s"):
        started(short, model)


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (
            MEMORY_LOG,
            r"seven did not come up: torch\.OutOfMemoryError: CUDA out of memory\. Tried .* is "
            r"free\. \(log: .*; the device's memory is too small .* \(--server-args: --max-model",
        ),
        (
            "ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` when initializing the engine.\nRuntimeError: Engine core "
            "initialization failed. See root cause above.\n",
            r"seven did not come up: ValueError: No available memory .* \(--server-args",
        ),
        (
            "ValueError: Model architectures ['Own'] are not supported\nRuntimeError: Engine core "
            "initialization failed. See root cause above.\n",
            r"seven did not come up: ValueError: Model architectures \['Own'\] are not supported",
        ),
        ("error: unrecognized arguments: --max-model\n", "unrecognized arguments: --max-model"),
    ],
)
def test_a_server_that_dies_is_told_at_once_with_the_cause(
    options: EvalOptions, model: Path, monkeypatch: pytest.MonkeyPatch, log: str, why: str
) -> None:
    monkeypatch.setenv("STAND_IN_VLLM", json.dumps({"dies": log}))
    start = time.monotonic()
    with pytest.raises(UserError, match=why) as told:
        started(options, model)
    assert time.monotonic() - start < 30
    assert "\n" not in str(told.value)


def test_all_visible_gpus_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do echo H100, 81559, 570.1; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = read_options(server_args="")
    assert (found.device, found.gpus, round(found.gpu_gib)) == ("cuda", 8, 80)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert len(gpus()) == read_options().gpus == 2


def test_a_gpu_without_vllm_is_told(
    options: EvalOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without = EvalOptions("paper", tmp_path, tmp_path / "work", device="cuda", gpus=1)
    logging.getLogger("rilbench").propagate = True
    with pytest.raises(UserError, match="no checkpoint folder"), caplog.at_level("WARNING"):  # noqa: SIM117
        with started_client(without, tmp_path / "absent", tmp_path / "log"):
            pass
    assert "a GPU and no vLLM: transformers serve answers one question at a time" in caplog.text
    with pytest.raises(UserError, match="--server-args are for the vLLM server"):
        EvalOptions("paper", tmp_path, tmp_path, server_args=("--enforce-eager",))


def test_only_options_that_change_responses_are_recorded() -> None:
    given = "--max-model-len 99 --quantization fp8 --enforce-eager --reasoning-parser=x"
    assert changing_arguments(given.split()) == ["--quantization", "fp8", "--reasoning-parser=x"]
