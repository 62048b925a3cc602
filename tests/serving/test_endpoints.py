"""Addresses that are none, servers that are none, and the user's proxies."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from bad_server import no_proxies, ssh_port
from fake_judge import fake_judge, says

from rilbench.errors import UserError
from rilbench.serving import ChatClient, Sampling, first_model, is_transformers, proxy_for


@pytest.mark.parametrize(
    "address",
    [
        *("http://host:abc/v1", "http://host:99999/v1", "http://[::1/v1", "ftp://host/v1"),
        *("host:8000/v1", "http:///v1", "http://me:word@host/v1", "http://ho st/v1", ""),
    ],
)
@pytest.mark.parametrize("use", [first_model, is_transformers, lambda url: ChatClient(url, "m")])
def test_what_is_no_address_is_said_at_once(use: Callable[[str], object], address: str) -> None:
    with pytest.raises(UserError, match=r"is not the address of a server; give http://HOST:PORT"):
        use(address)


def test_a_server_without_a_list_of_models() -> None:
    def remedy(url: str) -> str:
        with pytest.raises(UserError) as told:
            first_model(url)
        return str(told.value)

    end = "; name the model: --endpoint MODEL@URL"
    with fake_judge(lambda _: says("")) as real:
        assert remedy(real.url) == (
            f"{real.url}/models does not list a model (HTTP Error 404: Not Found){end}"
        )
    with fake_judge(lambda _: says(""), [""]) as real:
        assert first_model(real.url) == ""
    with ssh_port() as url:
        assert remedy(url).endswith(end)
    assert remedy("http://127.0.0.1:9/v1").endswith(
        f"is not reached ([Errno 111] Connection refused){end}"
    )


def test_nothing_but_transformers_serve_is_taken_for_it() -> None:
    with fake_judge(lambda _: says(""), ["m"]) as real, ssh_port() as other:
        for url in (real.url, other, "http://127.0.0.1:9/v1"):
            assert not is_transformers(url)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://model.example:8000/v1", "http://proxy:1"),
        ("https://model.example/v1", "http://proxy:2"),
        ("http://10.0.0.7/v1", "http://proxy:1"),
        ("http://near.example/v1", None),
        ("http://localhost:8000/v1", None),
        ("http://127.0.0.2:8000/v1", None),
        ("http://[::1]:8000/v1", None),
    ],
)
def test_proxies_are_the_users_but_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None
) -> None:
    no_proxies(monkeypatch)
    assert proxy_for(url) is None
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:2")
    monkeypatch.setenv("no_proxy", "near.example")
    assert proxy_for(url) == proxy


def complete(url: str) -> str:
    async def go() -> str:
        async with ChatClient(url, "m", retries=0) as client:
            return (await client.complete([{"role": "user", "content": "q"}], Sampling(8))).text

    return asyncio.run(go())


def test_a_far_server_is_asked_through_the_proxy_and_a_near_one_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))  # No business of a model's server.
    no_proxies(monkeypatch)
    with fake_judge(lambda _: says("far"), ["far"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert complete("http://model.example/v1") == "far"
        assert first_model("http://model.example/v1") == "far"
        with fake_judge(lambda _: says("near"), ["near"]) as real:
            assert complete(real.url) == "near"
            assert first_model(real.url) == "near"
        assert proxy.keys == real.keys == {"Bearer none"}


@contextmanager
def listening(get: Callable[[str, str], tuple[int, str, object]]) -> Iterator[str]:
    """A server that answers a path and a key with status, reason and JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, reason, content = get(self.path, str(self.headers["Authorization"]))
            self.send_response(status, reason)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_the_list_of_models_is_asked_for_with_the_key() -> None:
    def get(_: str, key: str) -> tuple[int, str, object]:
        known = key == "Bearer sk-7"
        return (200, "OK", {"data": [{"id": "m"}]}) if known else (401, "no sk-8 here", None)

    with listening(get) as url:
        assert first_model(url, api_key="sk-7") == "m"
        with pytest.raises(UserError, match=r"401: no … here\); start it") as told:
            first_model(url, api_key="sk-8", remedy="start it")
        assert "sk-8" not in str(told.value)


@pytest.mark.parametrize("transformers", [True, False])
def test_several_models_in_a_cache_are_no_answer(transformers: bool) -> None:
    routes = ["/v1/models", "/v1/chat/completions", *(["/load_model", "/reset"] * transformers)]

    def get(path: str, _: str) -> tuple[int, str, object]:
        if path == "/openapi.json":
            return 200, "OK", {"paths": {route: {} for route in routes}}
        return 200, "OK", {"data": [{"id": "a"}, {"id": "b"}]}

    with listening(get) as url:
        assert is_transformers(url) is transformers
        if transformers:
            with pytest.raises(UserError, match="in its cache, not what is served; name the model"):
                first_model(url)
        else:
            assert first_model(url) == "a"
