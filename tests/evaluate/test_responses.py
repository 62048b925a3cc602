"""What survives a kill."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from fake_judge import fake_judge, says
from one_file import one_file

from rilbench.errors import UserError
from rilbench.evaluate.prompts import BenchmarkQuestion, PromptSet
from rilbench.evaluate.responses import Key, ask, open_answers
from rilbench.serving import ChatClient, Completion, Sampling

DONE = Completion("é\u2028 \x85 \n", "stop", 12, 3, 0.25)


def question(name: str) -> BenchmarkQuestion:
    return BenchmarkQuestion("MMStar", name, name, "A", None, ())


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a" / "answers.jsonl"
    with open_answers(one_file(path)) as answers:
        answers.append_all({("MMStar", "1"): DONE})
        answers.append_all({("MMVet", "1"): dataclasses.replace(DONE, text="")})
    with open_answers(one_file(path)) as answers:
        assert answers.found["MMStar", "1"] == DONE
        assert answers.found["MMVet", "1"].text == ""
        assert answers.missing([question("1"), question("2")]) == [question("2")]


@pytest.mark.parametrize("kept", range(1, 80, 13))
def test_a_torn_line_is_cut_off_and_asked_again(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "answers.jsonl"
    with open_answers(one_file(path)) as answers:
        answers.append_all({("MMStar", "1"): DONE})
        whole = path.read_bytes()
        answers.append_all({("MMStar", "2"): DONE})
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    with open_answers(one_file(path)) as answers:
        assert list(answers.found) == [("MMStar", "1")]
        answers.append_all({("MMStar", "3"): DONE})
    with open_answers(one_file(path)) as answers:
        assert list(answers.found) == [("MMStar", "1"), ("MMStar", "3")]


def test_a_batch_torn_while_it_was_written_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_answers(one_file(path)) as answers:
        answers.append_all({("MMStar", str(i)): DONE for i in range(4)})
        assert len(answers.found) == 4
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    with open_answers(one_file(path)) as answers:
        assert list(answers.found) == [("MMStar", "0"), ("MMStar", "1")]


class Pictures:
    """Three questions, one of which cannot be asked, and their requests."""

    questions = (
        question("1"),
        dataclasses.replace(question("2"), problem="its picture cannot be read"),
        question("3"),
    )

    def messages(self, asked: BenchmarkQuestion, pixels: object) -> list[dict[str, str]]:
        return [{"role": "user", "content": asked.question_id}]


class Many(Pictures):
    """A hundred questions."""

    questions = tuple(question(str(number)) for number in range(100))  # type: ignore[assignment]


def test_a_question_that_is_refused_or_cannot_be_asked_stops_no_other(tmp_path: Path) -> None:
    too_long = True

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        refused = too_long and body["messages"][0]["content"] == "3"
        return (400, b"the prompt is too long") if refused else says("B")

    prompts = cast("PromptSet", Pictures())
    with (
        fake_judge(answer) as server,
        open_answers(one_file(tmp_path / "answers.jsonl")) as answers,
    ):
        client = ChatClient(server.url, "m", concurrency=1)
        answers.note_problems(prompts.questions)
        ask(client, prompts, answers, lambda _: Sampling(8), lambda _: None)
        reasons = {key[1]: found.finish_reason for key, found in answers.found.items()}
        assert reasons["1"] == "unknown"
        assert reasons["2"] == "error: its picture cannot be read"
        assert reasons["3"].endswith("refused a request with 400: the prompt is too long")
        # The next time it is asked again, and only it.
        assert answers.missing(prompts.questions) == [prompts.questions[2]]
        asked, too_long = len(server.seen), False
        ask(ChatClient(server.url, "m"), prompts, answers, lambda _: Sampling(8), lambda _: None)
        assert len(server.seen) == asked + 1
        assert answers.missing(prompts.questions) == []
    with open_answers(one_file(tmp_path / "answers.jsonl")) as answers:
        assert {key[1]: found.text for key, found in answers.found.items()} == {"1": "B", "3": "B"}


def test_a_server_that_refuses_everything_is_named_at_once(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: (400, b"no such model")) as server,
        open_answers(one_file(tmp_path / "answers.jsonl")) as answers,
    ):
        client = ChatClient(server.url, "m", concurrency=2)
        with pytest.raises(UserError, match="refused a request with 400: no such model"):
            ask(client, cast("PromptSet", Many()), answers, lambda _: Sampling(8), lambda _: None)
    assert len(server.seen) < 12


def test_a_resume_ends_though_all_that_is_left_is_refused(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        long = int(body["messages"][0]["content"]) >= 80
        return (400, b"the prompt is too long") if long else says("B")

    prompts = cast("PromptSet", Many())
    with fake_judge(answer) as server:
        for _ in range(2):
            with open_answers(one_file(tmp_path / "answers.jsonl")) as answers:
                client = ChatClient(server.url, "m", concurrency=2)
                ask(client, prompts, answers, lambda _: Sampling(8), lambda _: None)
                assert len(answers.missing(prompts.questions)) == 20
    assert len(server.seen) == 100 + 20


def test_responses_that_come_while_the_disk_is_slow_are_written_together(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: says("B")) as server,
        open_answers(one_file(tmp_path / "answers.jsonl")) as answers,
    ):
        written, write = [], answers.append_all

        def slowly(completions: Mapping[Key, Completion]) -> None:
            time.sleep(0.05)
            written.append(len(completions))
            write(completions)

        answers.append_all = slowly  # type: ignore[method-assign]
        client = ChatClient(server.url, "m", concurrency=50)
        ask(client, cast("PromptSet", Many()), answers, lambda _: Sampling(8), lambda _: None)
    assert sum(written) == 100
    assert len(written) < 50
    with open_answers(one_file(tmp_path / "answers.jsonl")) as answers:
        assert len(answers.found) == 100


@pytest.mark.parametrize("came", [0, 3])
def test_what_is_asked_again_is_kept_until_the_next_response_comes(
    tmp_path: Path, came: int
) -> None:
    """A server that breaks down takes no response away; the next evaluation asks on, or keeps."""
    path, prompts = tmp_path / "answers.jsonl", cast("PromptSet", Many())
    again = replies = 0

    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        nonlocal replies
        replies += 1
        return (401, b"no credit left") if again and replies > came else says(f"{again}")

    def texts() -> list[str]:
        return sorted(found.text for found in answers.found.values())

    with fake_judge(answer) as server:
        with open_answers(one_file(path)) as answers:
            client = ChatClient(server.url, "m", concurrency=1)
            ask(client, prompts, answers, lambda _: Sampling(8), lambda _: None)
            again, replies = 1, 0
            answers.forget(prompts.questions)
            assert len(answers.missing(prompts.questions)) == 100
            client = ChatClient(server.url, "m", concurrency=1)
            with pytest.raises(UserError, match="no credit left"):
                ask(client, prompts, answers, lambda _: Sampling(8), lambda _: None)
            assert replies <= came + 10, "it is refused everything"
        with open_answers(one_file(path)) as answers:
            assert texts() == ["0"] * (100 - came) + ["1"] * came
            assert len(answers.missing(prompts.questions)) == 100 - came
            answers.keep()
            assert answers.missing(prompts.questions) == []
        again, replies, came = 2, 0, 100
        with open_answers(one_file(path)) as answers:
            client = ChatClient(server.url, "m", concurrency=1)
            ask(client, prompts, answers, lambda _: Sampling(8), lambda _: None)
        with open_answers(one_file(path)) as answers:
            assert texts().count("2") == replies
            assert set(texts()) <= {"1", "2"}
            assert answers.missing(prompts.questions) == []


def test_a_full_disk_ends_it_in_one_line(tmp_path: Path) -> None:
    with (
        fake_judge(lambda _: says("B")) as server,
        open_answers(one_file(tmp_path / "answers.jsonl")) as answers,
    ):

        def full(_: Mapping[Key, Completion]) -> None:
            raise UserError("the disk is full")

        answers.append_all = full  # type: ignore[method-assign]
        client = ChatClient(server.url, "m", concurrency=2)
        with pytest.raises(UserError, match="the disk is full"):
            ask(client, cast("PromptSet", Many()), answers, lambda _: Sampling(8), lambda _: None)
    assert len(server.seen) < 100


@pytest.mark.parametrize("content", [b" " * 10_000_000, b'{"choices": [{"message": 3}]}'])
def test_an_answer_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    with (
        fake_judge(lambda _: (200, content)) as server,
        open_answers(one_file(tmp_path / "answers.jsonl")) as answers,
    ):
        client = ChatClient(server.url, "m", concurrency=1, retries=0)
        with pytest.raises(UserError, match=r"more than 4194304 bytes|not an OpenAI chat"):
            ask(client, cast("PromptSet", Many()), answers, lambda _: Sampling(8), lambda _: None)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with (
        open_answers(one_file(path)),
        pytest.raises(UserError, match="another evaluation"),
        open_answers(one_file(path)),
    ):
        pass
    with open_answers(one_file(path)):
        pass
