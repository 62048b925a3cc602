"""`serve` with a real ``transformers serve``, and how it fails."""

import asyncio
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from rilbench.errors import UserError
from rilbench.serving import (
    ChatClient,
    Completion,
    Message,
    Sampling,
    Server,
    first_model,
    image_part,
    is_transformers,
    log_end,
    serve,
    text_part,
)
from rilbench.serving.server import server_command


@pytest.fixture(scope="module")
def server(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, "subprocess.Popen[str]"]]:
    """A server that another process owns, so that a test can kill its owner."""
    log = tmp_path_factory.mktemp("serve") / "server.log"
    # Of its list of models it makes an error where there is no cache of them.
    environment = {**os.environ, "HF_HUB_CACHE": str(log.with_name("absent"))}
    code = (
        "import sys, time; from pathlib import Path; from rilbench.serving import serve\n"
        f"with serve(Path({str(checkpoint)!r}), log=Path({str(log)!r})) as s:\n"
        "    print(s.base_url, s.model, s.pid, flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert owner.stdout is not None
    url, model, pid = owner.stdout.readline().split()
    yield Server(url, model, log, int(pid)), owner
    owner.kill()
    owner.wait()
    owner.stdout.close()


def question(colour: str) -> list[Message]:
    stream = io.BytesIO()
    Image.new("RGB", (56, 56), colour).save(stream, "PNG")
    return [{"role": "user", "content": [image_part(stream.getvalue()), text_part("what is it?")]}]


def ask_all(
    server: Server, sampling: Sampling, colours: list[str], concurrency: int = 4
) -> dict[int, Completion]:
    async def go() -> dict[int, Completion]:
        client = ChatClient(
            server.base_url, server.model, transformers=True, concurrency=concurrency
        )
        requests = ((i, question(colour), sampling) for i, colour in enumerate(colours))
        async with client:
            return {key: found async for key, (found,) in client.complete_all(requests)}

    return asyncio.run(go())


def group_is_gone(pid: int, patience: float = 10.0) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_greedy_answers_are_the_models_own(
    server: tuple[Server, "subprocess.Popen[str]"], checkpoint: Path
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    colours = ["red", "green", "blue"]
    found = ask_all(server[0], Sampling(max_tokens=8), colours)

    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(checkpoint)
    for i, colour in enumerate(colours):
        image = Image.new("RGB", (56, 56), colour)
        messages = [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}],
            }
        ]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[prompt], images=[image], return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert found[i].text == processor.decode(new, skip_special_tokens=True)
        assert found[i].prompt_tokens == inputs["input_ids"].shape[1]
        assert found[i].completion_tokens == len(new)
        assert found[i].finish_reason == ("length" if len(new) == 8 else "stop")
        assert found[i].seconds > 0


def test_sampling_is_by_seed_when_one_asks_at_a_time(
    server: tuple[Server, "subprocess.Popen[str]"],
) -> None:
    def draw(seed: int, temperature: float = 1.0) -> str:
        sampling = Sampling(max_tokens=16, temperature=temperature, seed=seed)
        return ask_all(server[0], sampling, ["red"], concurrency=1)[0].text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1  # It samples, though the model's own
    assert draw(1, 0.0) == draw(2, 0.0)  # generation config says nothing about sampling.


def test_a_refused_request_says_why(server: tuple[Server, "subprocess.Popen[str]"]) -> None:
    stranger = Server(server[0].base_url, "/no/such/model", server[0].log, server[0].pid)
    with pytest.raises(UserError, match=r"400.*pinned"):
        ask_all(stranger, Sampling(max_tokens=1), ["red"])


def test_it_is_recognised_and_does_not_say_what_it_serves(
    server: tuple[Server, "subprocess.Popen[str]"],
) -> None:
    assert is_transformers(server[0].base_url)
    with pytest.raises(UserError, match=r"500.*name the model: --endpoint MODEL@URL"):
        first_model(server[0].base_url)


def test_server_dies_with_a_killed_owner(
    server: tuple[Server, "subprocess.Popen[str]"],
) -> None:
    """It takes the server away: the tests above need it."""
    os.killpg(server[0].pid, 0)
    server[1].send_signal(signal.SIGKILL)
    server[1].wait()
    assert group_is_gone(server[0].pid)


def test_body_that_raises_stops_the_server_and_a_bad_start_says_why(
    checkpoint: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    os.truncate(broken / "model.safetensors", 1000)

    def raising() -> int:
        with pytest.raises(RuntimeError, match="mine"), serve(checkpoint, log=tmp_path / "l") as up:
            raise RuntimeError("mine")
        return up.pid

    with ThreadPoolExecutor(1) as threads:  # Two starts at once: most of the time is imports.
        other = threads.submit(raising)
        with (
            pytest.raises(UserError, match=r"broken did not come up: .*Safetensor.* \(log: ") as no,
            serve(broken, log=tmp_path / "broken.log"),
        ):
            pass
        assert "\n" not in str(no.value)
        assert group_is_gone(other.result(), 0.1)


def test_too_late_is_an_error_and_leaves_no_process(checkpoint: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="did not answer within 0 s"),
        serve(checkpoint, log=tmp_path / "log", timeout=0.3),
    ):
        pass


def test_taken_port_is_named(checkpoint: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(UserError, match=f"port {port} of 127.0.0.1"),
            serve(checkpoint, log=tmp_path / "log", port=port),
        ):
            pass


def test_missing_folder_and_at_sign(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no checkpoint folder"),
        serve(tmp_path / "x", log=tmp_path / "l"),
    ):
        pass
    (tmp_path / "me@home").mkdir()
    with pytest.raises(UserError, match="'@'"), serve(tmp_path / "me@home", log=tmp_path / "l"):
        pass


def test_log_end_is_one_line_of_what_matters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "first\n\n 10%|\r 99%|\r100%| done\n  File x\n    ^^^^\n\x1b[31mError: no\x1b[0m\n"
    )
    assert log_end(log, lines=3) == f"100%| done | File x | Error: no (log: {log})"
    assert "nothing" in log_end(tmp_path / "absent")


def test_copies_of_a_model_have_a_process_each_that_takes_requests():
    """`vllm serve` starts as many; what it starts for one copy takes them all by itself."""
    of = {"device": "cuda", "dtype": "auto", "vllm": Path("python"), "name": "m"}
    one = server_command("weights", **of, tensor_parallel=4)
    assert one[1:5] == ["-m", "vllm.entrypoints.openai.api_server", "--model", "weights"]
    several = server_command("weights", **of, tensor_parallel=2, data_parallel=4)
    assert several[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "weights"]
    assert several[5:] == ["--dtype", "auto", "--served-model-name", "m",
                           "--tensor-parallel-size", "2", "--data-parallel-size", "4"]  # fmt: skip
