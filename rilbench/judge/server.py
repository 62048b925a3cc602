"""Serve a judge that decides by code over the OpenAI API.

Anything that asks a judge, this project's client or VLMEvalKit's MM-Vet and MathVista, can ask
this server instead. It answers in milliseconds and always alike, and the score records its name.
It refuses a prompt that it cannot decide (HTTP 400) and never makes a verdict up.

    python -m rilbench.judge.server --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
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
from rilbench.judge.code_judges import RULE, RULE_JUDGE, RULES, CodeJudge, find_judge
from rilbench.judge.mathvista import read_mathvista_prompt
from rilbench.judge.mmvet import read_mmvet_prompt
from rilbench.judge.prompt import read_judge_messages
from rilbench.judge.rules import extract

__all__ = ["RULE_JUDGE", "main", "reply", "serve_judge"]

_PROBE = "hello"  # What VLMEvalKit sends to see whether a judge is up.
_GREETING = "The judge is listening. It grades; it does not chat."
_MAX_BODY = 16 * 1024**2  # bytes
_BACKLOG = 1024  # connections

_log = logging.getLogger(__name__)


def reply(messages: Sequence[Mapping[str, str]], judge: CodeJudge = RULES) -> str:
    """Return a judge's reply to a conversation of plain texts.

    It reads the judge prompt of this project, and those of VLMEvalKit for MM-Vet and MathVista.
    MathVista's asks for the answer in a response, not for a verdict: the rules extract it,
    whoever the judge is.

    Raises:
        ValueError: none of the prompts above, or one that the judge cannot decide.
    """
    fields = read_judge_messages(messages)
    if fields is not None:
        right = judge.decide(*fields)
        if right is None:
            return f"The judge {judge.model} gives no verdict on this text."
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
            grades = {judge.grade(*reading) for reading in readings}
            if len(grades) > 1:
                raise ValueError(
                    "ambiguous MM-Vet prompt; end the question with a full stop or '?'"
                )
            grade = grades.pop()
            if grade is None:
                raise ValueError(f"the judge {judge.model} gives no verdict on this text")
            return str(grade)
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
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("this judge reads text parts only")
        content = "\n".join(map(str, texts))
    if not isinstance(content, str):
        raise ValueError("each message must have a text as its content")
    return {"role": str(message.get("role")), "content": content}


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


def _application(judge: CodeJudge) -> web.Application:
    """Return the web application. It judges one response at a time: a judge may be not
    thread-safe."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        model = {"id": judge.model, "object": "model", "created": 0, "owned_by": "rilbench"}
        return web.json_response({"object": "list", "data": [model]})

    async def chat(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            return _error(400, "the body is not JSON")
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            return _error(400, "the body must be an object with a list of messages")
        if body.get("model") != judge.model:
            return _error(404, f"no model {body.get('model')!r} here; ask for {judge.model!r}")
        if body.get("stream") or body.get("n") not in (None, 1):
            return _error(400, "this judge gives one whole reply; leave out stream and n")
        try:
            content = reply([_plain(message) for message in body["messages"]], judge)
        except ValueError as error:
            return _error(400, str(error))
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "finish_reason": "stop",
        }
        completion: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": judge.model,
            "choices": [choice],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        }
        return web.json_response(completion)

    application = web.Application(client_max_size=_MAX_BODY)
    application.router.add_get("/health", health)
    application.router.add_get("/v1/models", models)
    application.router.add_post("/v1/chat/completions", chat)
    return application


async def _serve(judge: CodeJudge, host: str, port: int, watch_stdin: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until standard input closes when it is watched."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if watch_stdin:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    runner = web.AppRunner(_application(judge), access_log=None, shutdown_timeout=5.0)
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
def serve_judge(name: str = RULE, *, timeout: float = 30.0) -> Iterator[str]:
    """Serve a judge that decides by code on the loopback and yield its base URL, ``http://…/v1``.

    The server is a process of its own and ends with the block. It also ends when this process is
    killed: its standard input is a pipe that the system then closes.

    Args:
        name: one of `rilbench.judge.code_judges.judge_names`.
        timeout: seconds to wait until it listens.

    Raises:
        UserError: no such judge; or the server does not start, with the last line that it wrote.
    """
    judge = find_judge(name)  # Here, for an error of its own before a process is started.
    command = [sys.executable, "-m", "rilbench.judge.server", "--judge", name, "--watch-stdin"]
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
        assert process.stdin is not None
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
                raise UserError(f"the judge {name} did not start; it wrote: {lines[-1]}")
            _log.info("the judge %s listens at %s", judge.model, url)
            yield url
        finally:
            too_long.cancel()
            process.terminate()
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()
            _log.info("the judge %s stopped", judge.model)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the server; print one line, its base URL, once it listens."""
    parser = argparse.ArgumentParser(description="Serve a judge that decides by code.")
    parser.add_argument("--judge", default=RULE, help="name of the judge, %(default)s by default")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes any free one")
    parser.add_argument("--watch-stdin", action="store_true", help="stop when stdin closes")
    options = parser.parse_args(arguments)
    try:
        judge = find_judge(options.judge)
    except UserError as error:
        parser.exit(1, f"{error}\n")
    asyncio.run(_serve(judge, options.host, options.port, options.watch_stdin))


if __name__ == "__main__":
    main()
