"""Servers of several kinds behind --endpoint and --judge: what they refuse, where they are."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_judge import FakeJudge, fake_judge, says
from proxy_questions import ask
from strict_api import strict_api

from rilbench.errors import UserError
from rilbench.evaluate.endpoint import Endpoint, find_endpoint, probed
from rilbench.evaluate.judge_session import read_judge, running_judge
from rilbench.evaluate.options import read_options
from rilbench.judge.proxy import JudgeProxy
from rilbench.serving import Sampling

SAMPLING = Sampling(64, extra={"repetition_penalty": 1.0})
DOWN = "http://127.0.0.1:9/v1"


def refusing(rule: str) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """A provider that refuses a field, in the words of OpenAI's API."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        why = ""
        if rule == "temperature" and body.get("temperature", 1) != 1:
            why = "Unsupported value: 'temperature' does not support 0 with this model. Only the "
            why += "default (1) value is supported."
        elif rule != "temperature" and rule in body:
            why = f"Unsupported parameter: '{rule}' is not supported with this model."
        return (400, json.dumps({"error": {"message": why}}).encode()) if why else says("B")

    return answer


def answer_of(endpoint: Endpoint, sampling: Sampling = SAMPLING) -> str:
    async def go() -> str:
        async with endpoint.client(4) as client:
            question = [{"role": "user", "content": "Which?"}]
            return (await client.complete(question, sampling)).text

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ("top_p", ["top_p"]),
        ("temperature", ["temperature"]),
        ("repetition_penalty", ["repetition_penalty"]),
        ("max_tokens", []),
    ],
)
def test_fields_that_a_provider_refuses_are_found_by_one_probe(
    tmp_path: Path, rule: str, left_out: list[str]
) -> None:
    with fake_judge(refusing(rule), ["m"]) as server:
        endpoint = probed(find_endpoint(server.url), SAMPLING)
        assert list(endpoint.left_out) == left_out
        assert answer_of(endpoint) == "B"
        sent = server.seen[-1].keys()
        assert sent >= {"max_completion_tokens" if rule == "max_tokens" else "max_tokens"}
        assert not sent & set(left_out)
        with JudgeProxy(server.url, "m", tmp_path / "cache.jsonl") as proxy:
            proxy.probe()
            found = ask(proxy, "Which?", max_tokens=3, temperature=0, top_p=1)
            assert found == "B"
            known = proxy.provenance().get("left_out", [])
            assert known == [name for name in left_out if name != "repetition_penalty"]


def test_fields_by_options_go_out_as_they_are(tmp_path: Path) -> None:
    fields = "{temperature: 1, top_p: null, max_completion_tokens: 99, reasoning_effort: low}"
    with fake_judge(lambda _: says("B"), ["m"]) as server:
        options = read_options(
            endpoint=server.url, fields=fields, judge=f"m@{server.url}", judge_fields=fields
        )
        sampling = Sampling(64, fields=options.fields).with_limit()
        endpoint = probed(find_endpoint(server.url), sampling)
        answer_of(endpoint, sampling)
        sent = {name: value for name, value in server.seen[-1].items() if name != "messages"}
        taken = {"temperature": 1, "max_completion_tokens": 99, "reasoning_effort": "low"}
        assert sent == {"model": "m", **taken}
        with running_judge(options.judge, tmp_path) as judge:
            assert judge.proxy is not None
            ask(judge.proxy, "Which?", max_tokens=3, temperature=0)
            sent = {name: value for name, value in server.seen[-1].items() if name != "messages"}
            assert sent == {"model": "m", **taken}
            assert judge.provenance()["fields"]["reasoning_effort"] == "low"
    with_limit = Sampling(64, fields={"temperature": 1}).with_limit()
    assert with_limit.fields == {"max_tokens": 64, "temperature": 1}
    assert with_limit.limited(8).fields == {"max_tokens": 8, "temperature": 1}
    with pytest.raises(UserError, match="--fields 3 is not understood; give a mapping"):
        read_options(endpoint=DOWN, fields="3")
    with pytest.raises(UserError, match="--fields are for a server at an --endpoint"):
        read_options(fields="{n: 1}")


def test_what_a_probe_cannot_solve_is_told_with_the_option() -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        return (401, b"Incorrect API key") if body["model"] == "m" else (404, b"no such model")

    with fake_judge(answer, ["m", "n"]) as server:
        with pytest.raises(UserError, match=r"401.*RILBENCH_ENDPOINT_KEY.*--fields"):
            probed(find_endpoint(f"m@{server.url}"), SAMPLING)
        with pytest.raises(UserError, match=r"404.*; it serves m, n, not other"):
            probed(find_endpoint(f"other@{server.url}"), SAMPLING)


def test_an_address_without_v1_is_told() -> None:
    class NoV1(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET  # noqa: N815  As the server calls it.

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), NoV1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    hint = f"ends in /v1: {url}/v1"
    try:
        with pytest.raises(UserError, match=hint):
            probed(find_endpoint(f"m@{url}"), SAMPLING)
        with pytest.raises(UserError, match=hint):
            find_endpoint(url)
        with JudgeProxy(url, "m", None) as proxy, pytest.raises(UserError, match=hint):
            proxy.probe()
        with pytest.raises(UserError, match="404") as told:
            probed(find_endpoint(f"m@{url}/v1"), SAMPLING)
        assert "ends in /v1" not in str(told.value)
    finally:
        server.shutdown()
        server.server_close()


def test_azures_query_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []

    class Azure(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append((self.path, self.headers["api-key"]))
            self.rfile.read(int(self.headers["Content-Length"]))
            status, content = says("B")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "secret")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Azure)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/openai/deployments/vlm"
    try:
        for written in (base, f"{base}/", f"{base}/chat/completions"):
            endpoint = probed(find_endpoint(f"m@{written}?api-version=2024-10-21"), SAMPLING)
            assert answer_of(endpoint) == "B"
    finally:
        server.shutdown()
        server.server_close()
    path = "/openai/deployments/vlm/chat/completions?api-version=2024-10-21"
    assert set(seen) == {(path, "secret")}


def several_servers(stack: ExitStack, number: int) -> list[FakeJudge]:
    def server() -> AbstractContextManager[FakeJudge]:
        return fake_judge(lambda _: says("B"), ["m"])

    return [stack.enter_context(server()) for _ in range(number)]


def test_several_addresses_are_balanced_and_one_may_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the key of its host."""
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY", "of-all")
    monkeypatch.setenv("RILBENCH_ENDPOINT_KEY_LOCALHOST", "of-one")
    monkeypatch.setenv("RILBENCH_JUDGE_KEY_LOCALHOST", "judges")
    with ExitStack() as stack:
        first, second = several_servers(stack, 2)
        other = second.url.replace("127.0.0.1", "localhost")
        option = f"m@{first.url},{other},{DOWN}"
        endpoint = probed(find_endpoint(option), SAMPLING)
        assert endpoint.answers
        assert "127.0.0.1:9" in caplog.text
        assert "the other servers go on" in caplog.text

        async def go() -> list[str]:
            question = [{"role": "user", "content": "Which?"}]
            async with endpoint.client(8) as client:
                requests = ((n, question, SAMPLING) for n in range(40))
                return [each.text async for _, (each, *_) in client.complete_all(requests)]

        assert asyncio.run(go()) == ["B"] * 40
        assert min(len(first.seen), len(second.seen)) > 5, "on a busy machine too"
        assert (first.keys, second.keys) == ({"Bearer of-all"}, {"Bearer of-one"})
        with running_judge(read_judge(option), tmp_path) as judge:
            assert judge.proxy is not None
            proxy = judge.proxy
            with ThreadPoolExecutor(8) as threads:
                assert {*threads.map(lambda n: ask(proxy, f"{n}?"), range(40))} == {"B"}
        assert "Bearer judges" in second.keys
        with pytest.raises(UserError, match="names several models"):
            find_endpoint(f"m@{first.url},n@{other}")


def test_no_verdict_is_lost_to_a_rate_limit(tmp_path: Path) -> None:
    """120 verdicts of a judge that gives 30 in each window, and then 429 with Retry-After."""
    with (
        strict_api("judge", "none", lambda _: "0.5", burst=30, window=1) as real,
        JudgeProxy(real.url, "judge", tmp_path / "c") as proxy,
        ThreadPoolExecutor(32) as threads,
    ):
        found = list(threads.map(lambda n: ask(proxy, f"question {n}", max_tokens=3), range(120)))
        assert found == ["0.5"] * 120
        assert real.limited > 0
        assert real.too_early == 0
        assert proxy.provenance()["verdicts"] == {
            "asked": 120,
            "judge": 120,
            "cached": 0,
            "failed": 0,
        }
