"""The judge's proxy, before judges that behave and judges that do not."""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fake_judge import FakeJudge, fake_judge, says

from rilbench.errors import UserError
from rilbench.judge.proxy import JudgeProxy

KEY = "sk-very-secret-7"


def ask(proxy: JudgeProxy, text: str, **more: Any) -> str:
    body = {"model": "gpt-4-turbo", "messages": [{"role": "user", "content": text}], **more}
    request = urllib.request.Request(
        f"{proxy.url}/chat/completions", json.dumps(body).encode(), {"Authorization": "Bearer no"}
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(json.load(reply)["choices"][0]["message"]["content"])


def test_the_judge_gets_its_own_name_and_the_key_and_is_asked_once(tmp_path: Path) -> None:
    with fake_judge(lambda body: says(f"0.{len(body['messages'][0]['content'])}")) as real:
        for _ in range(2):  # The second proxy finds the first one's replies.
            with JudgeProxy(real.url, "the-judge", tmp_path / "cache.jsonl", KEY) as proxy:
                assert [ask(proxy, text) for text in ("abc", "abcde", "abc")] == [
                    "0.3",
                    "0.5",
                    "0.3",
                ]
        assert proxy.counts == {"asked": 3, "cached": 3, "retried": 0, "failed": 0}
        assert [body["model"] for body in real.seen] == ["the-judge"] * 2
        assert real.keys == {f"Bearer {KEY}"}
        assert ask_again(real, tmp_path) == 3, "another temperature is another question"
    assert KEY not in "".join(path.read_text() for path in tmp_path.iterdir())


def ask_again(real: FakeJudge, folder: Path) -> int:
    with JudgeProxy(real.url, "the-judge", folder / "cache.jsonl", KEY) as proxy:
        ask(proxy, "abc", temperature=0.5)
    return len(real.seen)


def test_the_probe_tells_the_name_that_the_server_reports(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: says("hello")) as real,
        JudgeProxy(real.url, "alias", tmp_path / "c") as p,
    ):
        assert p.probe() == "judge-2026-01"
        assert ask(p, "hello") == "hello", "a kit's own probe costs nothing"
        assert len(real.seen) == 1


def test_a_wrong_key_is_said_once_without_the_key(tmp_path: Path) -> None:
    refusal = (401, f"Incorrect API key provided: {KEY}".encode())
    with (
        fake_judge(lambda _: refusal) as real,
        JudgeProxy(real.url, "m", tmp_path / "c", KEY) as proxy,
    ):
        with pytest.raises(UserError, match="RILBENCH_JUDGE_KEY") as told:
            proxy.probe()
        assert "HTTP 401" in str(told.value)
        assert KEY not in str(told.value)
        assert len(real.seen) == 1


def test_passing_trouble_is_tried_again(tmp_path: Path) -> None:
    answers = iter([(429, b""), (500, b"busy"), says("1.0")])
    with fake_judge(lambda _: next(answers)) as real:
        with JudgeProxy(real.url, "m", tmp_path / "c", backoff=0.01) as proxy:
            assert ask(proxy, "q") == "1.0"
        assert proxy.counts["retried"] == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, b"on fire"), "HTTP 500: on fire"),
        ((200, b"<html>"), "no chat completion"),
        ((200, b'{"choices": []}'), "no chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "no text"),
        ((200, b" " * 10_000_000), "more than 1048576 bytes"),
    ],
)
def test_a_failure_is_told_at_once_the_second_time(
    tmp_path: Path, answer: tuple[int, bytes], why: str
) -> None:
    with fake_judge(lambda _: answer) as real:
        with JudgeProxy(real.url, "m", tmp_path / "c", retries=1, backoff=0.01) as proxy:
            for temperature in (0.0, 0.5, 1.0):
                with pytest.raises(urllib.error.HTTPError) as told:
                    ask(proxy, "q", temperature=temperature)
                assert told.value.code == 503
                assert why in told.value.read().decode()
        assert len(real.seen) <= 2
        assert proxy.counts["failed"] == 3
        assert why in proxy.trouble
    assert not (tmp_path / "c").exists(), "a failure is not kept for the next time"


def test_a_judge_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    with JudgeProxy(
        "http://127.0.0.1:9/v1", "m", tmp_path / "c", retries=2, backoff=0.05, patience=2
    ) as proxy:
        start = time.monotonic()
        for number in range(30):
            with pytest.raises(urllib.error.HTTPError):
                ask(proxy, f"q{number}")
        assert time.monotonic() - start < 5
        assert proxy.counts["failed"] == 30
        assert proxy.counts["retried"] == 4


def test_a_judge_that_hangs_is_given_up(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_: dict[str, Any]) -> tuple[int, bytes]:
        release.wait(20)
        return says("late")

    with fake_judge(hang) as real:
        try:
            with JudgeProxy(real.url, "m", tmp_path / "c", timeout=0.3, retries=0) as proxy:
                with pytest.raises(urllib.error.HTTPError, match="503"):
                    ask(proxy, "q")
                assert "Timeout" in proxy.trouble
        finally:
            release.set()


def test_the_same_question_at_the_same_time_is_asked_once(tmp_path: Path) -> None:
    def slowly(_: dict[str, Any]) -> tuple[int, bytes]:
        time.sleep(0.3)
        return says("0.4")

    with fake_judge(slowly) as real, JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(ask(proxy, "q"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == ["0.4"] * 8
        assert len(real.seen) == 1


def test_a_line_that_was_cut_off_is_asked_again(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    with fake_judge(lambda _: says("0.7")) as real:
        with JudgeProxy(real.url, "m", cache) as proxy:
            ask(proxy, "a")
            ask(proxy, "b")
        cache.write_bytes(cache.read_bytes()[:-9])
        with JudgeProxy(real.url, "m", cache) as proxy:
            assert [ask(proxy, text) for text in "ab"] == ["0.7", "0.7"]
            assert proxy.counts["cached"] == 1
    assert len(cache.read_text().splitlines()) == 2


def test_nonsense_from_a_kit_is_refused(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: says("1")) as real,
        JudgeProxy(real.url, "m", tmp_path / "c") as proxy,
    ):
        for body in (b"{", b"[]", b"{}"):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(f"{proxy.url}/chat/completions", body, timeout=10)
        assert not real.seen
