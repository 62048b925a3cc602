"""Several servers of a model as one: balanced, left alone when they ask for it, survived."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from rilbench.serving.endpoints import listed_models, seconds_to_wait
from rilbench.serving.transport import NoReplyError, Transport

Answer = Callable[[int], web.Response | Awaitable[web.Response]]


async def ask(
    answers: list[Answer], number: int, *, patience: float = 30.0, retries: int = 2
) -> tuple[list[int], dict[str, int]]:
    """Send requests to servers that answer by the count of theirs; how many each got."""
    seen = [0] * len(answers)
    counts = {"retried": 0}
    async with AsyncExitStack() as stack:
        urls = []
        for place, answer in enumerate(answers):

            async def handle(
                _: web.Request, place: int = place, answer: Answer = answer
            ) -> web.Response:
                seen[place] += 1
                reply = answer(seen[place])
                return reply if isinstance(reply, web.Response) else await reply

            application = web.Application()
            application.router.add_post("/v1/x", handle)
            server = await stack.enter_async_context(TestServer(application))
            urls.append(str(server.make_url("/v1")))
        transport = Transport(
            urls,
            "none",
            concurrency=4,
            retries=retries,
            backoff=0.01,
            timeout=5.0,
            patience=patience,
            counts=counts,
        )
        stack.push_async_callback(transport.close)
        await asyncio.gather(
            *(transport.request("POST", "/x", {}, lambda content: content) for _ in range(number))
        )
    return seen, counts


def good(_: int) -> web.Response:
    return web.Response(text="{}")


def test_requests_are_shared_among_servers() -> None:
    async def slow(_: int) -> web.Response:
        await asyncio.sleep(0.02)
        return good(0)

    seen, _ = asyncio.run(ask([slow, slow], 20))
    assert sum(seen) == 20
    assert min(seen) >= 6


def test_one_that_fails_is_survived_without_a_lost_request() -> None:
    seen, counts = asyncio.run(ask([lambda _: web.Response(status=500), good], 40, retries=0))
    assert seen[1] == 40
    assert counts["retried"] == seen[0] < 20, "it rests, longer each time"


def test_one_that_hangs_holds_up_one_request_at_a_time() -> None:
    now = most = 0

    async def hangs(count: int) -> web.Response:
        nonlocal now, most
        if count <= 2:  # what is sent before it is known to fail
            return web.Response(status=500)
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.1)
        now -= 1
        return web.Response(status=500)

    async def slow(_: int) -> web.Response:
        await asyncio.sleep(0.02)
        return good(0)

    seen, _ = asyncio.run(ask([hangs, slow], 60))
    assert seen[1] == 60
    assert most == 1
    assert seen[0] > 3, "it is tried again"


def test_one_that_comes_back_is_asked_again() -> None:
    def at_first(count: int) -> web.Response:
        return web.Response(status=503) if count == 1 else good(count)

    async def slow(_: int) -> web.Response:
        await asyncio.sleep(0.02)
        return good(0)

    seen, _ = asyncio.run(ask([at_first, slow], 40))
    assert seen[0] > 5


def test_retry_after_is_for_all_requests_to_a_server() -> None:
    begun = time.monotonic()
    moments: list[float] = []

    def limited(count: int) -> web.Response:
        moments.append(time.monotonic() - begun)
        if count == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return good(count)

    seen, counts = asyncio.run(ask([limited], 3))
    assert seen[0] == 3 + counts["retried"]
    late = [moment for moment in moments if moment > 0.5]
    assert len(late) >= 1
    assert min(late) >= 1.0


def test_a_server_that_is_busy_for_longer_than_our_patience_is_given_up() -> None:
    def closed(_: int) -> web.Response:
        return web.Response(status=429, text="quota", headers={"Retry-After": "3600"})

    with pytest.raises(NoReplyError, match=r"HTTP 429: quota; it asks to wait for 3600 s") as told:
        asyncio.run(ask([closed], 1))
    assert told.value.passing


def test_a_refusal_is_the_last_word() -> None:
    with pytest.raises(NoReplyError, match="HTTP 400: no") as told:
        asyncio.run(ask([lambda _: web.Response(status=400, text="no")] * 2, 1))
    assert (told.value.passing, told.value.status, told.value.tries) == (False, 400, 1)


def test_what_retry_after_says() -> None:
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    assert 18 < seconds_to_wait(soon) <= 20
    assert seconds_to_wait("2.5") == 2.5
    assert [seconds_to_wait(x) for x in ("", "soon", "-3", "nan", "inf")] == [0.0] * 5
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


def test_a_list_of_models_is_waited_for_as_well() -> None:
    moments: list[float] = []

    async def models(_: web.Request) -> web.Response:
        moments.append(time.monotonic())
        if len(moments) == 1:
            return web.Response(status=429, headers={"Retry-After": "0.2"})
        return web.json_response({"data": [{"id": "m"}]})

    async def go() -> list[str]:
        application = web.Application()
        application.router.add_get("/v1/models", models)
        async with TestServer(application) as server:
            url = str(server.make_url("/v1"))
            return await asyncio.to_thread(listed_models, url, remedy="start it")

    assert asyncio.run(go()) == ["m"]
    assert moments[1] - moments[0] >= 0.2


def test_a_server_that_wants_the_other_name_for_the_limit_gets_it() -> None:
    bodies: list[dict[str, int]] = []

    async def strict(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        if "max_tokens" in bodies[-1]:
            error = {"message": "'max_tokens' is not supported; use 'max_completion_tokens'"}
            return web.json_response({"error": error}, status=400)
        return good(0)

    async def go() -> None:
        application = web.Application()
        application.router.add_post("/v1/x", strict)
        async with TestServer(application) as server:
            transport = Transport(
                str(server.make_url("/v1")),
                "none",
                concurrency=1,
                retries=0,
                backoff=0.01,
                timeout=5.0,
                patience=1.0,
            )
            for _ in range(3):
                await transport.request("POST", "/x", {"max_tokens": 7}, lambda content: content)
            await transport.close()

    asyncio.run(go())
    assert bodies == [{"max_tokens": 7}] + 3 * [{"max_completion_tokens": 7}]
