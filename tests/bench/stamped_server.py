"""A chat server that notes when each request came and went.

``stamped_server.py LOG SECONDS`` answers "A" after so many seconds; ``stamped_server.py LOG URL``
passes requests on to the server at URL (up to ``/v1``). It prints its own address; each line of LOG
is ``[came, went, status]``, in seconds of one clock.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
from aiohttp import web

LOG, TARGET = Path(sys.argv[1]), sys.argv[2]
FORWARDS = TARGET.startswith("http")
JSON = {"content_type": "application/json"}


async def chat(request: web.Request) -> web.Response:
    """Answer one request, and note its times."""
    came = time.monotonic()
    body = await request.read()
    if FORWARDS:
        url, session = f"{TARGET}/chat/completions", request.app["session"]
        async with session.post(
            url, data=body, headers={"Content-Type": JSON["content_type"]}
        ) as r:
            status, reply = r.status, await r.read()
    else:
        await asyncio.sleep(float(TARGET))
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": "A"}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "slow"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        status, reply = 200, json.dumps({**answer, "choices": [choice], "usage": usage}).encode()
    with LOG.open("a") as log:
        log.write(f"{json.dumps([came, time.monotonic(), status])}\n")
    return web.Response(body=reply, status=status, **JSON)


async def serve() -> None:
    """Listen on a free port until the process ends."""
    app = web.Application(client_max_size=64 * 1024**2)
    app["session"] = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
    app.add_routes([web.post("/v1/chat/completions", chat)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(f"http://127.0.0.1:{port}/v1\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(serve())
