"""Start an OpenAI-compatible server, wait until it answers, and stop it.

``transformers serve`` runs anywhere; vLLM, where it is installed, is for GPUs.
"""

import importlib.util
import json
import logging
import re
import shlex
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rilbench.errors import UserError
from rilbench.processes import GuardedProcess, start_guarded, stop_group

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """A server that answers: its address up to ``/v1``, the model name to ask for, its log."""

    base_url: str
    model: str
    log: Path
    pid: int
    transformers: bool = True
    """Whether it is ``transformers serve``, not vLLM or our own."""


def vllm_python() -> Path | None:
    """Return this Python if vLLM is installed in its environment, else None."""
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
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    name: str = "",
    gpus: str = "",
    arguments: Sequence[str] = (),
    option: str = "its options",
    batches: bool = False,
) -> Iterator[Server]:
    """Serve a checkpoint folder while the body runs.

    Args:
        model: a Hugging Face checkpoint folder with its processor.
        log: file for the server's output; overwritten.
        host: address to listen on.
        port: 0 picks a free one.
        timeout: seconds within which the server must answer a one-token request.
        device: torch's name of the device; vLLM uses the one it was built for.
        dtype: type of the weights, such as "float32" or "auto".
        threads: OpenMP threads of the server.
        vllm: a Python with vLLM; None for ``transformers serve``.
        tensor_parallel: number of GPUs among which vLLM divides the model.
        data_parallel: number of such copies, among which it balances.
        name: vLLM's name for the model; "": its folder.
        gpus: its ``CUDA_VISIBLE_DEVICES``; "": ours.
        arguments: further options of vLLM's; they go before those above.
        option: where the user gives them, for the errors' remedies.
        batches: a small model on a CPU: `rilbench.model.server` instead of ``transformers serve``.

    Raises:
        UserError: there is no such folder, the port is taken, or the server died or did not answer
            in time; with the end of its log.
    """
    model = model.resolve()
    if not model.is_dir():
        raise UserError(f"no checkpoint folder at {model}; give the path of one")
    if "@" in str(model) and vllm is None:
        # transformers serve splits model names at the first "@" into name and revision.
        raise UserError(f"the server cannot load a path with '@' in it: {model}; move the folder")
    with socket.socket() as probe:  # A free port for 0; closed again before the server binds it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {host} cannot be used ({error.strerror}); choose another"
            ) from error
        port = int(probe.getsockname()[1])
    command = server_command(
        str(model),
        device=device,
        dtype=dtype,
        vllm=vllm,
        tensor_parallel=tensor_parallel,
        data_parallel=data_parallel,
        name=name,
        arguments=arguments,
        batches=batches,
    )
    command += ["--host", host, "--port", str(port)]
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        # Plain tracebacks: the end of the log goes into our message.
        "TYPER_STANDARD_TRACEBACK": "1",
        "_TYPER_STANDARD_TRACEBACK": "1",
        "NO_COLOR": "1",
        **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {}),
    }
    guard = start_guarded(command, log, environment, keys=False)
    asked = name if name and vllm else str(model)
    server = Server(f"http://{host}:{port}/v1", asked, log, guard.pid, vllm is None and not batches)
    try:
        _log.info("starting a server for %s at %s; its log is %s", model, server.base_url, log)
        begun = time.monotonic()
        _wait_until_ready(guard, server, timeout, option)
        _log.info("%s answers after %.1f s", server.base_url, time.monotonic() - begun)
        yield server
    except (UserError, OSError) as error:
        if guard.poll() is not None and not isinstance(error, _NotReadyError):
            why = _why_stopped(log, option)
            raise UserError(f"the server for {model.name} stopped: {why}") from error
        raise
    finally:
        stop_group(guard)
        _log.info("the server at %s is stopped", server.base_url)


def split_options(setting: str, text: str) -> tuple[str, ...]:
    """Return the options of ``vllm serve`` in a text, split as a shell does.

    Args:
        setting: the option or setting that has the text, for the message.
        text: the options.

    Raises:
        UserError: a quotation mark has no second one.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(
            f"{setting} {text} is not understood ({error}); close the quotes"
        ) from error


def server_command(
    model: str,
    *,
    device: str,
    dtype: str,
    vllm: Path | None,
    tensor_parallel: int = 1,
    data_parallel: int = 1,
    name: str = "",
    arguments: Sequence[str] = (),
    batches: bool = False,
) -> list[str]:
    """Return the command line of a server, but for its address; arguments as for `serve`."""
    if batches:
        return [sys.executable, "-m", "rilbench.model.server", model]
    if vllm is None:
        program = str(Path(sys.executable).parent / "transformers")
        return [program, "serve", model, "--dtype", dtype, "--device", device]
    # `vllm serve`, which takes requests in a process for each copy, or what it starts for one: the
    # CPU's build has no such command.
    served = ["vllm.entrypoints.openai.api_server", "--model", model]
    if data_parallel > 1:
        served = ["vllm.entrypoints.cli.main", "serve", model]
    command = [str(vllm), "-m", *served, "--dtype", dtype]
    command += ["--served-model-name", name] if name else []
    for option, size in (("tensor", tensor_parallel), ("data", data_parallel)):
        command += [f"--{option}-parallel-size", str(size)] if size > 1 else []
    return [*command, *arguments]


class _NotReadyError(UserError):
    """The server did not start; the message already has the end of its log."""


def log_end(log: Path, lines: int = 4, characters: int = 600) -> str:
    """Return the last lines of a log file, joined into one, without colours and progress bars."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    kept = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    # Python underlines code with carets, which mean nothing in a single line.
    tail = " | ".join([line for line in kept if line.strip("^~ ")][-lines:])[-characters:]
    return f"{tail or 'nothing in its log'} (log: {log})"


_ERROR = re.compile(r"\b(?:[a-z_]\w*\.)*[A-Z]\w*Error: .+")
_SEE_ABOVE = "root cause above"
"""In the error with which vLLM's log ends; the cause is an error of another process before it."""
_TOO_LITTLE_MEMORY = re.compile(r"out of memory|OutOfMemory|gpu_memory_utilization|Free memory on")


def _why_stopped(log: Path, option: str) -> str:
    """Return the error that stopped a server, or its last words; for too little memory, what helps.

    Args:
        log: the server's.
        option: where the user gives vLLM's options.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    errors = [found[0].strip() for found in _ERROR.finditer(text)]
    causes = [error for error in errors if _SEE_ABOVE not in error]
    if not causes or not (_SEE_ABOVE in text or _TOO_LITTLE_MEMORY.search(causes[-1])):
        return log_end(log)
    why = f"{causes[-1][:600]} (log: {log})"
    if _TOO_LITTLE_MEMORY.search(causes[-1]) is None:
        return why
    return (
        f"{why}; the device's memory is too small for it or in use by others: give vLLM a shorter "
        f"context or another share of it ({option}: --max-model-len 16384, "
        "--gpu-memory-utilization 0.95), or take more devices"
    )


def _wait_until_ready(guard: GuardedProcess, server: Server, timeout: float, option: str) -> None:
    deadline = time.monotonic() + timeout
    # One token by our model's name proves that the model works, and that this is our server and
    # not another one that took the port before it.
    probe = {
        "model": server.model,
        "messages": [{"role": "user", "content": ""}],
        "max_tokens": 1,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions",
        data=json.dumps(probe).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy
    failure, late = "did not come up", False
    while guard.poll() is None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            failure, late = f"did not answer within {timeout:.0f} s", True
            break
        try:
            with opener.open(request, timeout=remaining) as response:
                response.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:200]
            failure = f"refused its first request ({error.code} {detail})"
            break
        except OSError:
            time.sleep(0.1)
        else:
            return
    why = log_end(server.log) if late else _why_stopped(server.log, option)
    raise _NotReadyError(f"the server for {Path(server.model).name} {failure}: {why}")
