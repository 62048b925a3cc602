"""Questions to servers that refuse, are busy, break down, hang, or say too much or nothing."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from bad_server import Reply, bad_server, ssh_port, text
from one_file import one_file

from rilbench.errors import UserError
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import AnswerFile, ask, open_answers
from rilbench.serving import ChatClient, Completion, Sampling, transport

REFUSAL = Reply(401, b"no such key")
BUSY = Reply(429, b"too many requests")
BROKEN = Reply(500, b"bad picture")
HANGS = Reply(silence=True)
LONG = Reply(content=b" " * 10_000_000)
NONSENSE = Reply(content=b'{"choices": [{"message": 3}]}')


class Twenty:
    """The questions 0 to 19."""

    questions = tuple(BenchmarkQuestion("MMStar", str(n), str(n), "A", None, ()) for n in range(20))

    def messages(self, asked: BenchmarkQuestion, pixels: object) -> list[dict[str, str]]:
        return [{"role": "user", "content": asked.question_id}]


PROMPTS = cast("PromptSet", Twenty())


def ask_all(url: str, answers: AnswerFile, **more: object) -> dict[str, Completion]:
    chosen = {"concurrency": 2, "retries": 0, "timeout": 60.0, "patience": 0.3, **more}
    client = ChatClient(url, "m", **chosen)  # type: ignore[arg-type]
    ask(client, PROMPTS, answers, lambda _: Sampling(8), lambda _: None)
    return {key[1]: found for key, found in answers.found.items()}


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (BUSY, r"did not answer after \d+ tries \(HTTP 429: too many requests"),
        (BROKEN, r"did not answer after 1 tries \(HTTP 500: bad picture\)"),
        (HANGS, r"did not answer after 1 tries \(.*Timeout"),
        (Reply(), r"did not answer after 1 tries \(not JSON"),
        (LONG, "more than 4194304 bytes"),
        (NONSENSE, "not an OpenAI chat completion"),
    ],
)
@pytest.mark.parametrize("bad", [("3",), tuple(str(n) for n in range(12, 20))])
def test_what_only_some_questions_meet_is_their_failure(
    tmp_path: Path, reply: Reply, why: str, bad: tuple[str, ...]
) -> None:
    limit = 4.0 if reply is HANGS else 60.0  # Good answers come late on a busy machine.
    with bad_server(lambda asked: reply if asked in bad else text()) as (url, _):
        for _ in range(2):  # A resume, which asks nothing but the bad ones, ends too.
            with open_answers(one_file(tmp_path / "a.jsonl")) as answers:
                found = ask_all(url, answers, concurrency=8, timeout=limit)
                failed = {name: each.finish_reason for name, each in found.items() if each.failed}
                assert failed.keys() == set(bad), failed
                assert len(found) == 20
                for name in bad:
                    assert re.search(why, failed[name])


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (REFUSAL, "with 401: no such key"),
        (BUSY, "429: too many requests"),
        (BROKEN, "500: bad picture"),
        (HANGS, "Timeout"),
    ],
)
@pytest.mark.parametrize("good", [0, 6])
def test_a_server_that_is_down_ends_it_and_what_came_is_kept(
    tmp_path: Path, reply: Reply, why: str, good: int
) -> None:
    came = 0

    def answer(_: str) -> Reply:
        nonlocal came
        came += 1
        return text() if came <= good else reply

    with (
        bad_server(answer) as (url, asked),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        with pytest.raises(UserError, match=why) as told:
            ask_all(url, answers, concurrency=1, timeout=4.0 if reply is HANGS else 60.0)
        assert "\n" not in str(told.value)
        assert len(answers.found) == good
        assert len(asked) <= good + 5


def test_an_empty_answer_is_an_answer(tmp_path: Path) -> None:
    with (
        bad_server(lambda _: text(None)) as (url, asked),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        found = ask_all(url, answers)
        assert {(each.text, each.finish_reason) for each in found.values()} == {("", "stop")}
        ask_all(url, answers)
    assert len(asked) == 20


@pytest.mark.parametrize("status", [401, 500])
def test_an_error_in_another_encoding_is_told(tmp_path: Path, status: int) -> None:
    with (
        bad_server(lambda _: Reply(status, b"cl\xe9 refus\xe9e")) as (url, _),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
        pytest.raises(UserError, match=f"{status}:? cl\ufffd refus\ufffde"),
    ):
        ask_all(url, answers)


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": None, "completion_tokens": None}])
def test_a_server_that_counts_no_tokens(tmp_path: Path, usage: object) -> None:
    with (
        bad_server(lambda _: text(usage=usage)) as (url, _),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        assert {each.prompt_tokens for each in ask_all(url, answers).values()} == {0}


def busy_at_first(times: int, reply: Reply) -> Callable[[str], Reply]:
    """Busy for so many requests, then not."""
    came = 0

    def answer(_: str) -> Reply:
        nonlocal came
        came += 1
        return reply if came <= times else text()

    return answer


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_left_alone_as_long_as_it_asks(tmp_path: Path, status: int) -> None:
    reply = Reply(status, b"", {"Retry-After": "2"})
    with (
        bad_server(busy_at_first(1, reply)) as (url, _),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        start = time.monotonic()
        found = ask_all(url, answers, patience=10.0, concurrency=1)
        assert time.monotonic() - start >= 2
        assert not any(each.failed for each in found.values())


def test_one_that_asks_for_an_hour_ends_it_at_once(tmp_path: Path) -> None:
    reply = Reply(429, b"quota", {"Retry-After": "3600"})
    with (
        bad_server(busy_at_first(1, reply)) as (url, asked),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        start = time.monotonic()
        with pytest.raises(UserError, match=r"429: quota; it asks to wait for 3600 s"):
            ask_all(url, answers, patience=10.0, concurrency=1)
        assert time.monotonic() - start < 10
        assert len(asked) == 1


def test_a_busy_server_is_tried_more_often_than_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_LONGEST_PAUSE", 0.01)
    with (
        bad_server(busy_at_first(30, BUSY)) as (url, _),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
    ):
        found = ask_all(url, answers, patience=10.0)
        assert not any(each.failed for each in found.values())
    with (
        bad_server(busy_at_first(30, BROKEN)) as (url, asked),
        open_answers(one_file(tmp_path / "b.jsonl")) as answers,
    ):
        with pytest.raises(UserError, match="after 3 tries"):
            ask_all(url, answers, retries=2, patience=10.0, concurrency=1)
        assert len(asked) == 6, "and a word, a few times, to see whether it is the server"


def test_the_key_is_in_no_message(tmp_path: Path) -> None:
    key = "sk-very-secret-7"
    with (
        bad_server(lambda _: Reply(401, b"x" * 290 + f"bad key {key}".encode())) as (url, _),
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
        pytest.raises(UserError, match="401") as told,
    ):
        ask_all(url, answers, api_key=key)
    assert "sk-" not in str(told.value)


def test_a_port_that_speaks_another_language(tmp_path: Path) -> None:
    with (
        ssh_port() as url,
        open_answers(one_file(tmp_path / "a.jsonl")) as answers,
        pytest.raises(UserError, match="did not answer after 1 tries"),
    ):
        ask_all(url, answers)
