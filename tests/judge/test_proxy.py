"""The judge's proxy, before judges that behave and judges that do not."""

import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bad_server import no_proxies
from fake_judge import FakeJudge, fake_judge, says
from full_disk import room
from proxy_questions import ask
from strict_api import strict_api

from rilbench.errors import UserError
from rilbench.judge.proxy import JudgeProxy
from rilbench.serving.reply import UNANSWERED

KEY = "sk-very-secret-7"


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


def test_an_api_that_refuses_max_tokens_judges_for_a_kit(tmp_path: Path) -> None:
    with (
        strict_api("judge-2", KEY, lambda _: "0.5") as real,
        JudgeProxy(real.url, "judge-2", tmp_path / "c", KEY) as proxy,
    ):
        assert proxy.probe() == "judge-2"
        assert ask(proxy, "q", max_tokens=16, temperature=0) == "0.5"
    assert [body["max_completion_tokens"] for body in real.served] == [8, 16]
    assert len(real.refused) == 1, "it is told once"


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


@pytest.mark.parametrize(
    ("key", "said", "told"),
    [("", "no such key", "no such key"), (KEY, "x" * 190 + f" {KEY} y", "x" * 190 + " … y")],
)
def test_a_refusal_is_told_as_it_is_but_for_the_key(
    tmp_path: Path, key: str, said: str, told: str
) -> None:
    with (
        fake_judge(lambda _: (403, said.encode())) as real,
        JudgeProxy(real.url, "m", tmp_path / "c", key) as proxy,
    ):
        with pytest.raises(urllib.error.HTTPError):
            ask(proxy, "q")
        assert proxy.troubles == {f"HTTP 403: {told}": 1}


def test_what_is_no_address_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the address of a server"):
        JudgeProxy("http://host:abc/v1", "m", tmp_path / "c")


@pytest.mark.parametrize("finish", ["stop", "length"])
@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_a_judge_that_reasons_passes_the_probe(
    tmp_path: Path, finish: str, content: dict[str, str | None]
) -> None:
    choice = {"message": {"reasoning": "They want", **content}, "finish_reason": finish}
    reply = json.dumps({"model": "thinker", "choices": [choice]}).encode()
    with (
        fake_judge(lambda _: (200, reply)) as real,
        JudgeProxy(real.url, "m", tmp_path / "c") as proxy,
    ):
        assert proxy.probe() == "thinker"


def test_a_judge_that_reasons_is_given_more_tokens_than_the_kit_gives(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        cut = body["max_tokens"] < 100
        message = {"content": None if cut else "<think>0.0?</think>1.0", "reasoning": "hm"}
        choice = {"message": message, "finish_reason": "length" if cut else "stop"}
        return 200, json.dumps({"model": "thinker", "choices": [choice]}).encode()

    with (
        fake_judge(answer) as real,
        JudgeProxy(real.url, "m", tmp_path / "c") as proxy,
    ):
        assert ask(proxy, "q", max_tokens=3) == "1.0"
        assert ask(proxy, "q", max_tokens=3) == "1.0"
        assert [body["max_tokens"] for body in real.seen] == [3, 8192]


@pytest.mark.parametrize("before", ["<think>", ""])  # Some templates have the tag in the prompt.
def test_the_thoughts_of_a_judge_that_are_cut_are_no_verdict(tmp_path: Path, before: str) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        if body["max_tokens"] < 100:
            return reply(f"{before}Okay, is it 5? Let me", "length")
        return reply(f"{before}Okay, is it 5? Let me see.</think>\n\n7", "stop")

    with fake_judge(answer) as real, JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
        assert [ask(proxy, text, max_tokens=16) for text in ("q", "r", "q")] == ["7", "7", "7"]
        # That this judge reasons is learnt from its first reply.
        assert [body["max_tokens"] for body in real.seen] == [16, 8192, 8192]


def test_of_a_judge_that_talks_the_kit_gets_the_beginning_that_it_asked_for(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        cut = body["max_tokens"] < 100
        return reply("0.8" if cut else "0.8, nearly right", "length" if cut else "stop")

    with fake_judge(answer) as real, JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
        assert ask(proxy, "q", max_tokens=3) == "0.8"


def test_a_reply_that_is_always_cut_is_none_and_not_kept(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: reply("5, or", "length")) as real,
        JudgeProxy(real.url, "m", tmp_path / "c") as proxy,
    ):
        with pytest.raises(urllib.error.HTTPError):
            ask(proxy, "q", max_tokens=3)
        assert proxy.troubles == {"the reply is cut at 8192 tokens": 1}
        assert len(real.seen) == 2
    assert not (tmp_path / "c").exists()


def test_no_judge_is_asked_where_the_model_gave_no_answer(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: says("B")) as real,
        JudgeProxy(real.url, "m", tmp_path / "c") as proxy,
    ):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            ask(proxy, f"Question: x\nAnswer: {UNANSWERED}\nYour output:")
        assert (real.seen, dict(proxy.troubles)) == ([], {})


def test_a_judge_is_known_by_its_revision_and_its_parameters(tmp_path: Path) -> None:
    served = {"id": "m", "root": "org/m-v1"}
    with fake_judge(lambda _: says("1.0"), [served]) as real:
        for root, sampling, times in (
            ("org/m-v1", {}, 1),
            ("org/m-v1", {"stop": ["x"]}, 2),
            ("org/m-v2", {}, 3),
            ("org/m-v1", {}, 3),
        ):
            served["root"] = root
            with JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
                proxy.probe()
                assert proxy.revision == root
                ask(proxy, "q", **sampling)
            asked = [body for body in real.seen if body["messages"][0]["content"] == "q"]
            assert len(asked) == times


def test_what_is_asked_afresh_replaces_its_reply_alone(tmp_path: Path) -> None:
    said = "1.0"
    with fake_judge(lambda _: says(said)) as real:
        for prompts, fresh, asked in (("qr", False, 2), ("q", True, 3), ("qr", False, 3)):
            with JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
                if fresh:
                    proxy.forget()
                found = [ask(proxy, prompt) for prompt in prompts]
                assert len(real.seen) == asked
            said = "0.0"
    assert found == ["0.0", "1.0"], "the new one counts, and the other prompt kept its own"


def reply(text: str, ended: str) -> tuple[int, bytes]:
    choice = {"message": {"content": text}, "finish_reason": ended}
    return 200, json.dumps({"model": "judge", "choices": [choice]}).encode()


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
        ((200, b"<html>"), "not JSON"),
        ((200, b'{"choices": []}'), "not a chat completion"),
        ((200, b'{"choices": [{"message": {"content": null}}]}'), "no answer: empty"),
        ((200, b" " * 10_000_000), "more than 4194304 bytes"),
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
        assert why in str(proxy.troubles)
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
                assert "Timeout" in str(proxy.troubles)
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


def failing(proxy: JudgeProxy, text: str) -> str:
    """What the kit is told."""
    with pytest.raises(urllib.error.HTTPError, match="503") as told:
        ask(proxy, text)
    return told.value.read().decode()


def test_refusals_however_many_are_no_sign_that_the_judge_is_down(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        bad = body["messages"][0]["content"].startswith("bad")
        return (400, b"content filter") if bad else says("0.5")

    with (
        fake_judge(answer) as real,
        JudgeProxy(real.url, "m", tmp_path / "c", retries=0, patience=3) as proxy,
    ):
        for number in range(8):
            assert "HTTP 400: content filter" in failing(proxy, f"bad{number}")
        assert ask(proxy, "good") == "0.5"


@pytest.mark.parametrize("status", [429, 500, 529])
def test_a_judge_that_was_down_is_asked_again_in_the_next_job(tmp_path: Path, status: int) -> None:
    down = True
    with (
        fake_judge(lambda _: (status, b"busy") if down else says("0.5")) as real,
        JudgeProxy(
            real.url, "m", tmp_path / "c", retries=0, patience=3, busy_patience=0.0
        ) as proxy,
    ):
        for number in range(5):
            failing(proxy, f"q{number}")
        assert len(real.seen) == 3
        down = False
        assert "the judge is down" in failing(proxy, "q9")
        assert "busy" in str(proxy.troubles)
        proxy.begin()
        assert not proxy.troubles
        assert [ask(proxy, text) for text in ("q0", "q9")] == ["0.5", "0.5"]


def test_a_job_tells_what_it_asked_and_who_replied(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        return (400, b"no") if body["messages"][0]["content"] == "bad" else says("0.5")

    with (
        fake_judge(answer) as real,
        JudgeProxy(real.url, "m", tmp_path / "c", retries=0) as proxy,
    ):
        proxy.probe()
        nothing = proxy.provenance()
        ask(proxy, "a")
        ask(proxy, "hello")  # A kit's own probe.
        proxy.begin()
        assert proxy.provenance() == nothing
        for text in ("a", "b", "c", "b"):
            ask(proxy, text)
        for temperature in (0.0, 0.5):  # As kits do.
            with pytest.raises(urllib.error.HTTPError):
                ask(proxy, "bad", temperature=temperature)
        first = proxy.provenance()
        assert first["verdicts"] == {"asked": 4, "judge": 2, "cached": 1, "failed": 1}
        proxy.begin()
        for text in ("c", "b", "a"):
            ask(proxy, text)
        less = proxy.provenance()
        failing(proxy, "bad")
        again = proxy.provenance()
    assert less["verdicts"] == {"asked": 3, "judge": 0, "cached": 3, "failed": 0}
    assert less["asked_sha256"] != first["asked_sha256"] == again["asked_sha256"]
    with JudgeProxy("http://127.0.0.1:9/v1", "m", tmp_path / "c") as later:
        later.name = "judge-2026-01"
        for text in ("b", "c", "a"):
            ask(later, text)
        assert later.provenance() == less, "the same prompts, another day"


def test_a_job_tells_that_the_judge_was_moved_to_another_model(tmp_path: Path) -> None:
    names = iter(["one", "one", "two"])

    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        reply = {"model": next(names), "choices": [{"message": {"content": "0.5"}}]}
        return 200, json.dumps(reply).encode()

    with fake_judge(answer) as real, JudgeProxy(real.url, "m", tmp_path / "c") as proxy:
        assert proxy.probe() == "one"
        ask(proxy, "a")
        assert proxy.provenance()["models"] == ["one"]
        ask(proxy, "b")
        proxy.begin()
        assert proxy.provenance()["models"] == []
        for text in ("a", "b"):
            ask(proxy, text)
        assert proxy.provenance()["models"] == ["one", "two"], (
            "those of replies that were kept, too"
        )


def test_a_full_disk_costs_no_more_than_one_reply(tmp_path: Path) -> None:
    cache = tmp_path / "c"
    with fake_judge(lambda _: says("0.5")) as real:
        with JudgeProxy(real.url, "m", cache) as proxy:
            ask(proxy, "a")
            before = cache.read_bytes()
            with room(len(before) + 20):
                assert "cannot be written" in failing(proxy, "b")
                failing(proxy, "c")
            assert len(real.seen) == 2
            assert "make room" in str(proxy.troubles)
            proxy.begin()
            assert ask(proxy, "b") == "0.5"
        with JudgeProxy(real.url, "m", cache) as proxy:
            assert [ask(proxy, text) for text in "ab"] == ["0.5", "0.5"]
    assert len(real.seen) == 3


@pytest.mark.parametrize("line", [b'{"key": "b", "mo{"key": "c"}', b'{"dataset": "x"}'])
def test_a_cache_that_is_none_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "c").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"/c (is damaged|does not hold a judge)"):
        JudgeProxy("http://127.0.0.1:9/v1", "m", tmp_path / "c")


def test_a_far_judge_is_asked_through_the_users_proxy_and_a_near_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))  # No business of a judge's server.
    no_proxies(monkeypatch)
    with fake_judge(lambda _: says("0.1")) as between, fake_judge(lambda _: says("0.2")) as near:
        monkeypatch.setenv("http_proxy", between.url.removesuffix("/v1"))
        for name, url, reply in (("f", "http://far.example/v1", "0.1"), ("n", near.url, "0.2")):
            with JudgeProxy(url, "m", tmp_path / name, KEY, retries=0) as proxy:
                request = urllib.request.Request(
                    f"{proxy.url}/chat/completions",
                    json.dumps({"messages": [{"role": "user", "content": "q"}]}).encode(),
                )
                direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with direct.open(request, timeout=30) as answer:
                    assert reply in answer.read().decode()
        assert between.keys == near.keys == {f"Bearer {KEY}"}
