"""A model that is known by its server only: whether it is still the same one."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_judge import FakeJudge, fake_judge, says

from rilbench.checkpoint import Checkpoint, Labels, inspect_checkpoint
from rilbench.errors import UserError
from rilbench.evaluate.endpoint import Endpoint, check_served, find_endpoint, probed
from rilbench.evaluate.identity import STORED, TOKENS, IdentityFile, Stored, choose, serving_model
from rilbench.evaluate.prompts import BenchmarkQuestion
from rilbench.paths import locate
from rilbench.serving import Completion, Message, Sampling

SAMPLING = Sampling(2048)
Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


def by_question(wrong: Sequence[int] = ()) -> Answer:
    """A model that answers each question in its own way; some of them otherwise."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        asked = body["messages"][-1]["content"]
        if not asked.isdecimal():
            return says("hello")
        return says(f"other {asked}" if int(asked) in wrong else f"answer {asked}")

    return answer


class Swapped:
    """A server whose model can be exchanged."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.server: FakeJudge

    @property
    def questions(self) -> int:
        """Questions that it was asked, without the probes."""
        return sum(body["messages"][-1]["content"].isdecimal() for body in self.server.seen)


@contextmanager
def swapped(answer: Answer) -> Iterator[Swapped]:
    found = Swapped(answer)
    with fake_judge(lambda body: found.answer(body), ["m"]) as found.server:
        yield found


def stored(number: int = STORED) -> list[Stored]:
    return [Stored([{"role": "user", "content": str(i)}], f"answer {i}") for i in range(number)]


def seen_first(work: Path, server: Swapped) -> Endpoint:
    """The endpoint after an evaluation of 16 questions."""
    model = serving_model(find_endpoint(server.server.url), work, [], SAMPLING)
    assert (model.notes, model.endpoint.since, server.questions) == ({}, "", 0)
    model.file.store("", stored())
    model.file.store("", stored(3))
    assert len(model.file.read()[0].stored) == STORED, "a few more questions do not replace many"
    return model.endpoint


def test_the_same_model_is_recognised_by_its_responses(tmp_path: Path) -> None:
    with swapped(by_question()) as server:
        first = seen_first(tmp_path, server)
        again = serving_model(find_endpoint(server.server.url), tmp_path, [], SAMPLING)
        assert again.endpoint.checkpoint == first.checkpoint
        assert again.endpoint.name == "m"
        assert server.questions == STORED
        assert "0 are answered otherwise" in again.notes["identity"]
        server.answer = by_question(wrong=[3])  # In a batch a server may round otherwise.
        again = serving_model(find_endpoint(server.server.url), tmp_path, [], SAMPLING)
        assert again.endpoint.since == ""
        assert "of 16 questions stored on 20" in again.notes["identity"]
        assert "1 are answered otherwise now" in again.notes["identity"]


def test_a_model_exchanged_behind_the_address_is_another_one(tmp_path: Path) -> None:
    """And the first is known again when it comes back, also at another address."""
    with swapped(by_question()) as server:
        first = seen_first(tmp_path, server)
        server.answer = by_question(wrong=[3, 7])
        other = serving_model(find_endpoint(server.server.url), tmp_path, [], SAMPLING)
        assert "2 are answered otherwise now: another model is served" in other.notes["identity"]
        assert other.endpoint.since
        assert other.endpoint.name != first.name
        assert other.endpoint.checkpoint.fingerprint != first.checkpoint.fingerprint
        other.file.store(
            other.endpoint.since,
            [
                replace(
                    each,
                    response=each.response.replace("answer 3", "other 3").replace(
                        "answer 7", "other 7"
                    ),
                )
                for each in stored()
            ],
        )
        again = serving_model(find_endpoint(server.server.url), tmp_path, [], SAMPLING)
        assert again.endpoint.checkpoint == other.endpoint.checkpoint
    with swapped(by_question()) as moved:
        back = serving_model(find_endpoint(moved.server.url), tmp_path, [], SAMPLING)
        assert back.endpoint.checkpoint == first.checkpoint
        assert back.endpoint.name == first.name


def test_another_folder_behind_the_name_is_another_model_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vLLM tells it in its list of models; nothing is asked for that."""
    with swapped(by_question()) as server:
        root = {"root": "/checkpoints/step-100"}
        monkeypatch.setattr("rilbench.evaluate.endpoint._listed", lambda *_: root)
        seen_first(tmp_path, server)
        root["root"] = "/checkpoints/step-200"
        other = serving_model(find_endpoint(server.server.url), tmp_path, [], SAMPLING)
        assert (
            "tells root /checkpoints/step-200, and /checkpoints/step-100 before"
            in (other.notes["identity"])
        )
        assert server.questions == 0


def test_a_server_that_is_down_leaves_what_it_answered(tmp_path: Path) -> None:
    with swapped(by_question()) as server:
        first, url = seen_first(tmp_path, server), server.server.url
    again = serving_model(find_endpoint(f"m@{url}"), tmp_path, [], SAMPLING)
    assert again.endpoint.checkpoint == first.checkpoint
    assert again.notes["identity"] == "no server answers, so that no question was asked again"
    with pytest.raises(UserError, match="no server answers at"):
        serving_model(find_endpoint(f"n@{url}"), tmp_path, [], SAMPLING)


@pytest.mark.parametrize(
    ("again", "same"),
    [
        (Completion("The answer is", "length", 1, 1, 0.1), True),
        (Completion("The other", "length", 1, 1, 0.1), False),
        (Completion("The answer is", "stop", 1, 1, 0.1), False),
        (Completion("", "length", 1, 1, 0.1), None),
        (Completion("7.", "stop", 1, 1, 0.1, reasoning="The answer is "), True),
        (Completion("", "error: refused", 0, 0, 0.0), None),
    ],
)
def test_a_response_is_compared_as_far_as_it_goes(again: Completion, same: bool | None) -> None:
    assert Stored([], "The answer is 7.").is_answered_by(again) is same


def test_a_response_that_was_cut_is_compared_to_its_end() -> None:
    longer = Completion("The answer is 7.", "stop", 1, 1, 0.1)
    assert Stored([], "The answer", is_cut=True).is_answered_by(longer)
    assert Stored([], "The other", is_cut=True).is_answered_by(longer) is False


def test_the_questions_with_the_longest_responses_are_kept() -> None:
    def messages(question: BenchmarkQuestion) -> list[Message]:
        size = 10**6 if question.question_id == "39" else 1
        return [{"role": "user", "content": "x" * size}]

    asked = [
        (
            BenchmarkQuestion("MMStar", str(n), str(n), "A", None, ()),
            Completion("y" * n, "stop", 1, 1, 0.1),
        )
        for n in range(40)
    ]
    found = choose(asked, messages, Sampling(99, extra={"repetition_penalty": 1.0}))
    assert found[0].sampling == Sampling(TOKENS, extra={"repetition_penalty": 1.0})
    assert choose(asked, messages, Sampling(99), ["temperature"]) == []
    assert choose(asked, messages, Sampling(99, fields={"temperature": 1})) == []
    assert [len(each.response) for each in found] == list(range(38, 38 - STORED, -1))


def test_a_folder_that_is_served_is_compared_with_the_named_model(tmp_path: Path) -> None:
    checkpoint = locate("nano:restyled").resolve()
    model = inspect_checkpoint(checkpoint)
    other = Checkpoint(tmp_path, "f" * 16, "qwen2_5_vl", Labels("s", "base", "none"))
    served = Endpoint(("http://h/v1",), "m", served={"root": str(checkpoint)})
    assert check_served(served, model) == ""
    with pytest.raises(UserError, match=f"serves {checkpoint}, which is another model than"):
        check_served(served, other)
    unknown = Endpoint(("http://h/v1",), "m", served={"root": "Qwen/Qwen2.5-VL-7B-Instruct"})
    assert "is not known; it tells Qwen/Qwen2.5-VL-7B-Instruct" in check_served(unknown, model)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = IdentityFile(tmp_path, Endpoint(("http://h/v1",), "m"))
    file.path.parent.mkdir()
    file.path.write_text(json.dumps([{"stored": 3}]))
    with pytest.raises(UserError, match=r"cannot be read .*; delete it"):
        file.read()


def test_what_vllm_tells_of_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"id": "m", "root": "/models/seven", "parent": None, "max_model_len": 99}]
    monkeypatch.setattr("rilbench.evaluate.endpoint.models_list", lambda *_, **__: listed)
    with fake_judge(by_question(), ["m"]) as server:
        endpoint = probed(find_endpoint(server.url), SAMPLING)
    assert endpoint.served == {"root": "/models/seven", "replies_as": "judge-2026-01"}
