"""The judge client, against the real exact judge and against judges that misbehave."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from bad_server import no_proxies
from fake_judge import fake_judge, says

from rilbench.errors import UserError
from rilbench.judge.client import JudgeClient
from rilbench.judge.server import RULE_JUDGE, serve_judge

Handler = Callable[[web.Request], Awaitable[web.Response]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_judge() as base:
        yield base


@contextlib.asynccontextmanager
async def _judge(chat: Handler, models: Handler | None = None) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/v1/chat/completions", chat)
    if models:
        application.router.add_get("/v1/models", models)
    async with TestServer(application) as running:
        yield str(running.make_url("/v1"))


def _says(text: str | None) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": text}}]})


def test_verdicts_of_the_real_judge(url: str) -> None:
    client = JudgeClient(url)  # Before there is an event loop.

    async def ask() -> None:
        async with client:
            right = await client.verdict("How many?", "7", "The answer is 7.")
            wrong = await client.verdict("How many?", "7", "The answer is 8.")
            again = await client.verdict("How many?", "7", "The answer is 7.")
        assert (right.value, right.judge, right.cached) == (1, RULE_JUDGE, False)
        assert "<answer>1</answer>" in right.text
        assert wrong.value == 0
        assert (again.value, again.cached, again.text) == (1, True, right.text)

    asyncio.run(ask())
    assert client.counts == {"asked": 3, "cached": 1, "missing": 0, "retried": 0}


def test_it_outlives_an_event_loop(url: str) -> None:
    client = JudgeClient(url)

    async def ask(response: str) -> int | None:
        verdict = await client.verdict("q", "a", response)
        await client.close()
        return verdict.value

    assert [asyncio.run(ask(text)) for text in ("a", "b", "a")] == [1, 0, 1]
    assert client.counts["cached"] == 1


def test_what_the_judge_refuses_is_missing(url: str) -> None:
    async def ask() -> None:
        async with JudgeClient(url) as client:
            verdict = await client.verdict("q", "", "anything")
            assert verdict.value is None
            assert "HTTP 400" in verdict.text
            assert client.counts == {"asked": 1, "cached": 0, "missing": 1, "retried": 0}

    asyncio.run(ask())


def test_a_failing_judge_gives_missing_and_not_zero() -> None:
    calls = 0

    async def chat(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        return web.Response(status=503, text="busy\nvery busy")

    async def ask() -> None:
        async with (
            _judge(chat) as url,
            JudgeClient(url, "j", retries=3, backoff=0.001) as client,
        ):
            verdict = await client.verdict("q", "a", "a")
            assert verdict.value is None
            assert verdict.text == "HTTP 503: busy very busy"
            assert client.counts == {"asked": 1, "cached": 0, "missing": 1, "retried": 3}
            assert calls == 4
            await client.verdict("q", "a", "a")  # A missing verdict is asked for again.
            assert calls == 8

    asyncio.run(ask())


def test_it_tries_again_after_passing_trouble() -> None:
    troubles = [web.Response(status=429), web.Response(text="not json"), web.Response(status=500)]

    async def chat(_: web.Request) -> web.Response:
        return troubles.pop(0) if troubles else _says("ok <answer>1</answer>")

    async def ask() -> None:
        async with _judge(chat) as url, JudgeClient(url, "j", backoff=0.001) as client:
            assert (await client.verdict("q", "a", "a")).value == 1
            assert client.counts["retried"] == 3

    asyncio.run(ask())


@pytest.mark.parametrize("text", ["yes", "<answer>2</answer>", "", None])
def test_an_unreadable_verdict_is_missing(text: str | None) -> None:
    async def chat(_: web.Request) -> web.Response:
        return _says(text)

    async def ask() -> None:
        async with _judge(chat) as url, JudgeClient(url, "j", backoff=0.001) as client:
            assert (await client.verdict("q", "a", "a")).value is None
            assert client.counts == {"asked": 1, "cached": 0, "missing": 1, "retried": 0}

    asyncio.run(ask())


def test_a_judge_that_hangs_or_is_gone_is_missing() -> None:
    async def chat(_: web.Request) -> web.Response:
        await asyncio.sleep(1.0)
        return _says("<answer>1</answer>")

    async def ask() -> None:
        async with (
            _judge(chat) as url,
            JudgeClient(url, "j", retries=1, backoff=0.001, timeout=0.1) as client,
        ):
            assert (await client.verdict("q", "a", "a")).value is None
            assert client.counts["retried"] == 1
        async with JudgeClient(url, "j", retries=1, backoff=0.001) as client:
            assert (await client.verdict("q", "a", "a")).value is None

    asyncio.run(ask())


def test_identical_requests_share_one_call_and_concurrency_is_bounded() -> None:
    calls = busy = most = 0

    async def chat(_: web.Request) -> web.Response:
        nonlocal calls, busy, most
        calls, busy = calls + 1, busy + 1
        most = max(most, busy)
        await asyncio.sleep(0.02)
        busy -= 1
        return _says("<answer>1</answer>")

    async def ask() -> None:
        async with _judge(chat) as url, JudgeClient(url, "j", concurrency=3) as client:
            verdicts = await asyncio.gather(
                *(client.verdict("q", "a", str(i % 10)) for i in range(40))
            )
            assert {verdict.value for verdict in verdicts} == {1}
            assert sum(verdict.cached for verdict in verdicts) == 30
            assert client.counts == {"asked": 40, "cached": 30, "missing": 0, "retried": 0}
        assert (calls, most) == (10, 3)

    asyncio.run(ask())


def test_a_caller_that_gives_up_does_not_take_the_others_along() -> None:
    async def chat(_: web.Request) -> web.Response:
        await asyncio.sleep(0.1)
        return _says("<answer>0</answer>")

    async def ask() -> None:
        async with _judge(chat) as url, JudgeClient(url, "j") as client:
            first = asyncio.create_task(client.verdict("q", "a", "b"))
            second = asyncio.create_task(client.verdict("q", "a", "b"))
            await asyncio.sleep(0.03)
            first.cancel()
            assert (await second).value == 0

    asyncio.run(ask())


def test_the_judge_is_part_of_the_key_and_the_model_is_asked_for_once() -> None:
    listed = 0

    async def models(_: web.Request) -> web.Response:
        nonlocal listed
        listed += 1
        return web.json_response({"data": [{"id": "big-judge"}]})

    async def chat(request: web.Request) -> web.Response:
        body = await request.json()
        assert request.headers["Authorization"] == "Bearer secret"
        assert (body["model"], body["temperature"]) == ("big-judge", 0.0)
        return _says("<answer>1</answer>")

    async def ask() -> None:
        async with _judge(chat, models) as url, JudgeClient(url, api_key="secret") as client:
            found = await asyncio.gather(*(client.verdict("q", "a", str(i)) for i in range(8)))
            assert {verdict.judge for verdict in found} == {"big-judge"}
        assert listed == 1

    asyncio.run(ask())


def test_a_judge_without_one_clear_name_is_an_error() -> None:
    async def two(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "a"}, {"id": "b"}]})

    async def odd(_: web.Request) -> web.Response:
        return web.json_response(["a"])

    async def chat(_: web.Request) -> web.Response:
        raise AssertionError

    async def ask() -> None:
        for models, message in ((two, "2 models"), (odd, "name the judge"), (None, "not answer")):
            async with (
                _judge(chat, models) as url,
                JudgeClient(url, retries=1, backoff=0.001) as client,
            ):
                with pytest.raises(UserError, match=message):
                    await client.verdict("q", "a", "a")

    asyncio.run(ask())


@pytest.mark.parametrize(("key", "told"), [("sk-very-secret-7", "… y"), ("", "y")])
def test_a_refusal_is_told_without_the_key(key: str, told: str) -> None:
    async def chat(_: web.Request) -> web.Response:
        return web.Response(status=401, text=f"{'x' * 190} {key} y")

    async def ask() -> None:
        async with _judge(chat) as url, JudgeClient(url, "j", key) as client:
            verdict = await client.verdict("q", "a", "a")
            assert verdict.text == f"HTTP 401: {'x' * 190} {told}"

    asyncio.run(ask())


def test_a_far_judge_is_asked_through_the_users_proxy_and_a_near_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def near(_: web.Request) -> web.Response:
        return _says("<answer>1</answer>")

    async def ask() -> list[int | None]:
        async with _judge(near) as url:
            found = []
            for judge in (url, "http://far.example/v1"):
                async with JudgeClient(judge, "j") as client:
                    found.append((await client.verdict("q", "a", "b")).value)
            return found

    no_proxies(monkeypatch)
    with fake_judge(lambda _: says("<answer>0</answer>")) as between:
        monkeypatch.setenv("http_proxy", between.url.removesuffix("/v1"))
        assert asyncio.run(ask()) == [1, 0]


def test_what_is_no_address_is_said_at_once() -> None:
    with pytest.raises(UserError, match="is not the address of a server"):
        JudgeClient("http://host:abc/v1", "j")


def test_verdicts_are_kept_in_a_file_by_their_content(tmp_path):
    file = tmp_path / "judge.jsonl"
    replies = iter(["<answer>1</answer>", "no idea", "<answer>0</answer>"])
    with fake_judge(lambda _: says(next(replies))) as server:

        async def ask(*questions):
            async with JudgeClient(server.url, "judge", cache=file) as judge:
                return [(await judge.verdict(q, "7", "8")).value for q in questions]

        assert asyncio.run(ask("a", "b")) == [1, None]
        # Another client: what was decided is not asked again, what is missing is.
        assert asyncio.run(ask("a", "b", "a")) == [1, 0, 1]
        assert len(server.seen) == 3
    assert len(file.read_text().splitlines()) == 2


def completion(text, ended="stop", **message):
    choice = {"message": {"content": text, **message}, "finish_reason": ended}
    return 200, json.dumps({"model": "judge-2026-01", "choices": [choice]}).encode()


def ask_once(url, **options):
    async def ask():
        async with JudgeClient(url, "judge", retries=0, **options) as judge:
            return await judge.verdict("q", "7", "8")

    return asyncio.run(ask())


def test_a_judge_that_reasons_decides_after_its_thoughts():
    thought = "<think><answer>1</answer>? No.</think> Wrong. <answer>0</answer>"
    with fake_judge(lambda _: completion(thought)) as server:
        assert ask_once(server.url).value == 0
    with fake_judge(lambda _: completion(None, reasoning_content="<answer>1</answer>")) as server:
        verdict = ask_once(server.url)
        assert (verdict.value, verdict.text) == (None, "the reply is no answer: only reasoning")
        assert len(server.seen) == 1


def test_a_reply_that_is_cut_is_asked_for_again_with_more_tokens(tmp_path):
    def thinks(body):
        # 1000 tokens of thought, and a guess in the middle of them.
        if body["max_tokens"] < 1000:
            return completion("<answer>1</answer>, or", "length")
        return completion("<answer>0</answer>")

    with fake_judge(thinks) as server:

        async def ask():
            async with JudgeClient(server.url, "judge", cache=tmp_path / "v.jsonl") as judge:
                return [(await judge.verdict(q, "7", "8")).value for q in ("a", "b", "a")]

        assert asyncio.run(ask()) == [0, 0, 0]
        # What one reply needed, the next may need as well.
        assert [body["max_tokens"] for body in server.seen] == [512, 2048, 2048]
        assert asyncio.run(ask()) == [0, 0, 0]
        assert len(server.seen) == 3, "however long it may be, it is the same verdict"


def test_a_reply_that_is_always_cut_is_missing_and_no_guess():
    with fake_judge(lambda _: completion("<answer>1</answer>, or", "length")) as server:
        verdict = ask_once(server.url)
        assert (verdict.value, verdict.text) == (None, "the reply is cut at max_tokens=8192")
        assert len(server.seen) == 3


def test_a_judge_tells_what_stands_behind_its_name():
    async def content(models):
        async def chat(_):
            return web.json_response(json.loads(completion("hello")[1]))

        async def listed(_):
            return web.json_response(models)

        async with _judge(chat, listed) as url, JudgeClient(url, "judge") as judge:
            return await judge.content()

    plain = {"model": "judge", "served": "judge-2026-01"}
    vllm = {"data": [{"id": "judge", "root": "/models/qwen", "created": 5}, {"id": "other"}]}
    assert asyncio.run(content(vllm)) == plain | {"root": "/models/qwen"}
    for without in ({"data": [{"id": "other"}]}, {"data": []}, [], {}):
        assert asyncio.run(content(without)) == plain
