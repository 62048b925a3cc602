"""The client against a small HTTP server that misbehaves on order."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from rilbench.errors import UserError
from rilbench.serving import ChatClient, Sampling, first_model, image_part

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answer(text: str) -> web.Response:
    message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return web.json_response({"choices": [message], "usage": usage})


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def test_keeps_to_its_concurrency_and_reads_requests_lazily() -> None:
    now = most = drawn = 0

    async def slow(request: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return answer((await request.json())["messages"][0]["content"])

    async def go() -> dict[int, str]:
        def requests() -> Any:
            nonlocal drawn
            for i in range(20):
                drawn += 1
                yield i, [{"role": "user", "content": f"q{i}"}], Sampling(max_tokens=1)

        found = {}
        async with listening(slow) as url, ChatClient(url, "m", concurrency=3) as client:
            async for key, (completion,) in client.complete_all(requests()):
                found[key] = completion.text
                assert drawn <= len(found) + 3
        return found

    assert asyncio.run(go()) == {i: f"q{i}" for i in range(20)}
    assert most == 3


def test_the_client_grows_at_a_real_server_and_loses_nothing() -> None:
    now = most = 0

    async def saturates(_: web.Request) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.2 * max(1.0, now / 24))
        now -= 1
        return answer("A")

    async def go() -> int:
        requests = (
            (i, [{"role": "user", "content": "q"}], Sampling(max_tokens=1)) for i in range(450)
        )
        async with (
            listening(saturates) as url,
            ChatClient(url, "m", concurrency=4, most=64) as client,
        ):
            return len({key async for key, _ in client.complete_all(requests)})

    assert asyncio.run(go()) == 450
    assert 16 <= most <= 64


def test_tries_again_after_an_overload_and_gives_up_in_words() -> None:
    tries = 0

    async def overloaded(_: web.Request) -> web.Response:
        nonlocal tries
        tries += 1
        return answer("at last") if tries == 3 else web.Response(status=503, text="busy")

    async def go(retries: int) -> str:
        async with listening(overloaded) as url, ChatClient(url, "m", retries=retries) as client:
            message = [{"role": "user", "content": "q"}]
            return (await client.complete(message, Sampling(max_tokens=1))).text

    assert asyncio.run(go(2)) == "at last"
    tries = 3
    with pytest.raises(UserError, match=r"after 2 tries \(HTTP 503: busy\)"):
        asyncio.run(go(1))


def test_first_error_ends_all_and_is_not_tried_again() -> None:
    seen: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        content = (await request.json())["messages"][0]["content"]
        seen.append(content)
        return web.Response(status=422, text="no") if content == "bad" else answer(content)

    async def go() -> None:
        requests = [
            (text, [{"role": "user", "content": text}], Sampling(max_tokens=1))
            for text in ("bad", *"abcdefgh")
        ]
        async with listening(refuse) as url, ChatClient(url, "m", concurrency=1) as client:
            async for _ in client.complete_all(requests):
                pass

    with pytest.raises(UserError, match="422: no"):
        asyncio.run(go())
    assert seen == ["bad"]


def test_what_is_sent_to_each_kind_of_server() -> None:
    bodies: list[dict[str, Any]] = []

    async def remember(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return answer("x")

    async def go() -> None:
        sampling = Sampling(8, temperature=0.7, top_p=0.9, seed=5, extra={"suppress_tokens": [1]})
        message = [{"role": "user", "content": "q"}]
        async with listening(remember) as url:
            for kind in (True, False):
                async with ChatClient(url, "m", transformers=kind) as client:
                    await client.complete(message, sampling)

    asyncio.run(go())
    ours, other = bodies
    assert json.loads(ours.pop("generation_config")) == {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 0,
        "suppress_tokens": [1],
    }
    assert other.pop("suppress_tokens") == [1]
    common = {"model": "m", "max_tokens": 8, "temperature": 0.7, "top_p": 0.9, "seed": 5}
    assert ours == other == {**common, "messages": [{"role": "user", "content": "q"}]}


def test_half_a_character_is_replaced() -> None:
    async def half(_: web.Request) -> web.Response:
        return answer("a\ud83d b")

    async def go() -> str:
        async with listening(half) as url, ChatClient(url, "m") as client:
            message = [{"role": "user", "content": "q"}]
            return (await client.complete(message, Sampling(max_tokens=1))).text

    assert asyncio.run(go()) == "a? b"


def test_an_answer_that_is_none_and_a_server_that_is_not_there() -> None:
    async def nonsense(_: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    async def go() -> None:
        async with listening(nonsense) as url, ChatClient(url, "m") as client:
            await client.complete([{"role": "user", "content": "q"}], Sampling(max_tokens=1))

    with pytest.raises(UserError, match="not an OpenAI chat completion"):
        asyncio.run(go())
    with pytest.raises(UserError, match="is not reached"):
        first_model("http://127.0.0.1:9/v1")


def test_image_part_names_the_format() -> None:
    assert image_part(b"\xff\xd8x")["image_url"]["url"].startswith("data:image/jpeg;base64,/9h4")
    for start, kind in (
        (b"\x89PNG", "png"),
        (b"RIFF____WEBP", "webp"),
        (b"GIF89a", "gif"),
        (b"BM__", "bmp"),
        (b"II*\0", "tiff"),
    ):
        url = image_part(start)["image_url"]["url"]
        assert url.startswith(f"data:image/{kind};base64,")
