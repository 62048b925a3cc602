"""What survives a kill."""

import dataclasses
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.answers import open_answers
from rilbench.evaluate.prompts import Question
from rilbench.serving import Completion

DONE = Completion("é\u2028 \x85 \n", "stop", 12, 3, 0.25)


def question(name: str) -> Question:
    return Question("MMStar", name, name, "A", None, ())


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a" / "answers.jsonl"
    with open_answers(path) as answers:
        answers.append(("MMStar", "1"), DONE)
        answers.append(("MMVet", "1"), dataclasses.replace(DONE, text=""))
    with open_answers(path) as answers:
        assert answers.found["MMStar", "1"] == DONE
        assert answers.found["MMVet", "1"].text == ""
        assert answers.missing([question("1"), question("2")]) == [question("2")]


@pytest.mark.parametrize("kept", range(1, 80, 13))
def test_a_torn_line_is_cut_off_and_asked_again(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "answers.jsonl"
    with open_answers(path) as answers:
        answers.append(("MMStar", "1"), DONE)
        whole = path.read_bytes()
        answers.append(("MMStar", "2"), DONE)
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    with open_answers(path) as answers:
        assert list(answers.found) == [("MMStar", "1")]
        answers.append(("MMStar", "3"), DONE)
    with open_answers(path) as answers:
        assert list(answers.found) == [("MMStar", "1"), ("MMStar", "3")]


def test_a_batch_torn_while_it_was_written_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_answers(path) as answers:
        answers.append_all({("MMStar", str(i)): DONE for i in range(4)})
        assert len(answers.found) == 4
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    with open_answers(path) as answers:
        assert list(answers.found) == [("MMStar", "0"), ("MMStar", "1")]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with (
        open_answers(path),
        pytest.raises(UserError, match="another evaluation"),
        open_answers(path),
    ):
        pass
    with open_answers(path):
        pass
