"""The exact judge: the rules of :mod:`rilbench.judge.rules` behind the OpenAI API.

Anything that asks a judge, this project's client or VLMEvalKit's MM-Vet and MathVista, can ask
this server instead: it answers in milliseconds, always alike, and its name stands in the score's
row. It refuses prompts that it cannot decide by rule (HTTP 400) rather than make a verdict up.

    python -m rilbench.judge.server --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from rilbench.api_keys import without_keys
from rilbench.errors import UserError
from rilbench.judge.mathvista import read_mathvista_prompt
from rilbench.judge.mmvet import read_mmvet_prompt
from rilbench.judge.prompt import read_judge_messages
from rilbench.judge.rules import extract, grade, is_right

RULE_JUDGE = "rilbench-rule-judge-1"
"""The judge's name; the number goes up whenever a rule changes a verdict."""

_PROBE = "hello"  # What VLMEvalKit sends to see whether a judge is up.
_GREETING = "The rule judge is listening. It grades; it does not chat."
_MAX_BODY = 16 * 1024**2  # bytes
_BACKLOG = 1024  # connections


def reply(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the judge's reply to a conversation of plain texts.

    It knows the judge prompt of this project, and those of VLMEvalKit for MM-Vet and MathVista.

    Raises:
        ValueError: none of the prompts above, or one that the rules cannot decide.
    """
    asked = read_judge_messages(messages)
    if asked is not None:
        _, truth, response = asked
        right = is_right(truth, response)
        return (
            f"By rule, the text {'agrees' if right else 'does not agree'} with the ground truth. "
            f"<answer>{int(right)}</answer>"
        )
    if len(messages) == 1:
        content = messages[0].get("content", "")
        if content == _PROBE:
            return _GREETING
        readings = read_mmvet_prompt(content)
        if readings is not None:
            grades = {grade(truth, prediction) for _, truth, prediction in readings}
            if len(grades) > 1:
                raise ValueError(
                    "ambiguous MM-Vet prompt; end the question with a full stop or '?'"
                )
            return str(grades.pop())
        extraction = read_mathvista_prompt(content)
        if extraction is not None:
            return extract(*extraction)
    raise ValueError(
        "neither rilbench's judge prompt nor MM-Vet's nor MathVista's; ask a language model instead"
    )


def _plain(message: object) -> dict[str, str]:
    """Return role and text of an OpenAI message, whose content is a string or a list of parts."""
    if not isinstance(message, dict):
        raise ValueError("each message must be an object with role and content")
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(map(_part_text, content))
    if not isinstance(content, str):
        raise ValueError("each message must have a text as its content")
    return {"role": str(message.get("role")), "content": content}


def _part_text(part: object) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise ValueError("the rule judge reads text parts only")
    return text


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _models(_: web.Request) -> web.Response:
    model = {"id": RULE_JUDGE, "object": "model", "created": 0, "owned_by": "rilbench"}
    return web.json_response({"object": "list", "data": [model]})


async def _chat(request: web.Request) -> web.Response:
    try:
        body = await request.json()
    except ValueError:
        return _error(400, "the body is not JSON")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return _error(400, "the body must be an object with a list of messages")
    if body.get("model") != RULE_JUDGE:
        return _error(404, f"no model {body.get('model')!r} here; ask for {RULE_JUDGE!r}")
    if body.get("stream") or body.get("n") not in (None, 1):
        return _error(400, "the rule judge gives one whole reply; leave out stream and n")
    try:
        content = reply([_plain(message) for message in body["messages"]])
    except ValueError as error:
        return _error(400, str(error))
    return web.json_response(_completion(content))


def _completion(content: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": "stop",
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": RULE_JUDGE,
        "choices": [choice],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _application() -> web.Application:
    application = web.Application(client_max_size=_MAX_BODY)
    application.router.add_get("/health", _health)
    application.router.add_get("/v1/models", _models)
    application.router.add_post("/v1/chat/completions", _chat)
    return application


async def _serve(host: str, port: int, watch_stdin: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until standard input closes when it is watched."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if watch_stdin:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    runner = web.AppRunner(_application(), access_log=None, shutdown_timeout=5.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
        await site.start()
        sys.stdout.write(f"http://{host}:{runner.addresses[0][1]}/v1\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def rule_judge(timeout: float = 30.0) -> Iterator[str]:
    """Start the exact judge on the loopback and yield its base URL, ``http://…/v1``.

    The judge is a process of its own and ends with the block. It also ends when this process is
    killed: its standard input is a pipe that the system then closes.

    Args:
        timeout: seconds to wait for the first line.

    Raises:
        UserError: it does not come up; the message ends with the last line that it wrote.
    """
    command = [sys.executable, "-m", "rilbench.judge.server", "--port", "0", "--watch-stdin"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=without_keys(os.environ),
            start_new_session=True,  # Ctrl-C is for us; the judge ends when we have finished.
        )
        assert process.stdout is not None
        too_long = threading.Timer(timeout, process.kill)
        too_long.start()
        try:
            url = process.stdout.readline().strip()
            too_long.cancel()
            if not url:
                process.wait()
                log.seek(0)
                lines = log.read().strip().splitlines() or [f"nothing within {timeout:g} s"]
                raise UserError(f"the rule judge did not start; it wrote: {lines[-1]}")
            yield url
        finally:
            too_long.cancel()
            _end(process)


def _end(process: subprocess.Popen[str], patience: float = 10.0) -> None:
    """Ask the process to stop, then make it, and close its pipes."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server; print one line, its base URL, once it listens."""
    parser = argparse.ArgumentParser(description="The exact judge, served over the OpenAI API.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--watch-stdin", action="store_true", help="stop when stdin closes")
    options = parser.parse_args(arguments)
    asyncio.run(_serve(options.host, options.port, options.watch_stdin))


if __name__ == "__main__":
    main()
