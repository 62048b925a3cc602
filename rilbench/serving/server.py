"""Start, wait for and stop an OpenAI-compatible server of our own.

``transformers serve`` runs anywhere; ``vllm serve``, where it is installed, is for GPUs.
"""

import importlib.util
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rilbench.errors import UserError
from rilbench.processes import start_guarded, stop_group


@dataclass(frozen=True)
class Server:
    """A server that answers: its address up to ``/v1``, the model name to ask for, its log."""

    base_url: str
    model: str
    log: Path
    pid: int
    transformers: bool = True
    """It is ``transformers serve``, not ``vllm serve``."""


def vllm_python() -> Path | None:
    """This Python, if vLLM is installed in its environment; else None."""
    return Path(sys.executable) if importlib.util.find_spec("vllm") else None


@contextmanager
def serve(
    model: Path,
    *,
    log: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    timeout: float = 180.0,
    device: str = "cpu",
    dtype: str = "float32",
    threads: int = 1,
    vllm: Path | None = None,
    gpus: int = 1,
) -> Iterator[Server]:
    """Serve a checkpoint folder while the body runs.

    Args:
        model: a Hugging Face checkpoint folder with its processor.
        log: file for what the server says; overwritten.
        host: address to listen on.
        port: 0 picks a free one.
        timeout: seconds within which the server must answer a one-token request.
        device: as torch names it; vLLM has the one it was built for.
        dtype: of the weights, such as "float32" or "auto".
        threads: OpenMP threads of the server.
        vllm: a Python with vLLM to serve with; None for ``transformers serve``.
        gpus: among which vLLM divides the model.

    Raises:
        UserError: no such folder, the port is taken, the server died or did not answer in time;
            with the end of its log.
    """
    model = model.resolve()
    if not model.is_dir():
        raise UserError(f"no checkpoint folder at {model}; give the path of one")
    if "@" in str(model) and vllm is None:
        # transformers serve splits model names at the first "@" into name and revision.
        raise UserError(f"the server cannot load a path with '@' in it: {model}; move the folder")
    port = _free_port(host, port)
    address = ["--host", host, "--port", str(port), "--dtype", dtype]
    if vllm is None:
        program = str(Path(sys.executable).parent / "transformers")
        command = [program, "serve", str(model), *address, "--device", device]
    else:  # What `vllm serve` starts; the CPU's build has no such command.
        module = "vllm.entrypoints.openai.api_server"
        command = [str(vllm), "-m", module, "--model", str(model), *address]
        command += ["--tensor-parallel-size", str(gpus)] if gpus > 1 else []
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        # Plain tracebacks: the end of the log goes into our message.
        "TYPER_STANDARD_TRACEBACK": "1",
        "_TYPER_STANDARD_TRACEBACK": "1",
        "NO_COLOR": "1",
    }
    guard = start_guarded(command, log, environment, keys=False)
    server = Server(f"http://{host}:{port}/v1", str(model), log, guard.pid, vllm is None)
    try:
        _wait_until_ready(guard, server, timeout)
        yield server
    except (UserError, OSError) as error:
        if guard.poll() is not None and not isinstance(error, _NotReadyError):
            raise UserError(f"the server for {model.name} stopped: {log_end(log)}") from error
        raise
    finally:
        stop_group(guard)


class _NotReadyError(UserError):
    """The server did not come up; the message already has the end of its log."""


def log_end(log: Path, lines: int = 4, characters: int = 600) -> str:
    """The last lines of a log file, joined into one, without colours and progress bars."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    kept = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    # Python underlines code with carets; they say nothing on one line.
    tail = " | ".join([line for line in kept if line.strip("^~ ")][-lines:])[-characters:]
    return f"{tail or 'nothing in its log'} (log: {log})"


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0. The socket is closed again before the server binds."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {host} cannot be used ({error.strerror}); choose another"
            ) from error
        return int(probe.getsockname()[1])


def _wait_until_ready(guard: "subprocess.Popen[bytes]", server: Server, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    # One token by our model's name: proves that the model works, and that this is our server and
    # not another one that took the port before it.
    probe = {
        "model": server.model,
        "messages": [{"role": "user", "content": ""}],
        "max_tokens": 1,
        "temperature": 0,
    }
    failure = "did not come up"
    while guard.poll() is None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            failure = f"did not answer within {timeout:.0f} s"
            break
        try:
            _ask(f"{server.base_url}/chat/completions", probe, remaining)
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:200]
            failure = f"refused its first request ({error.code} {detail})"
            break
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise _NotReadyError(
        f"the server for {Path(server.model).name} {failure}: {log_end(server.log)}"
    )


def _ask(url: str, body: dict[str, Any], timeout: float) -> None:
    """POST a JSON body, past any proxy; raises OSError (HTTPError for a status of 400 or more)."""
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as response:
        response.read()
