"""Journals on a disk that is full, damaged, or shared with another process."""

import asyncio
import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from full_disk import room
from one_file import one_file

from rilbench.errors import UserError
from rilbench.evaluate.responses import open_answers
from rilbench.jsonl_log import BatchedWriter, append_jsonl, iter_jsonl, read_jsonl
from rilbench.serving import Completion

ROW = {"key": "a", "text": "é\u2028\n" * 20}
DONE = Completion("an answer", "stop", 12, 3, 0.25)


@pytest.mark.parametrize("spare", [0, 1, 100])
def test_a_full_disk_is_named_and_leaves_no_half_line(tmp_path: Path, spare: int) -> None:
    path = tmp_path / "j"
    append_jsonl(path, [ROW])
    before = path.read_bytes()
    with (
        room(len(before) + spare),
        pytest.raises(UserError, match=r"/j cannot be written \(File too large\); make room"),
    ):
        append_jsonl(path, [ROW])
    assert path.read_bytes() == before
    append_jsonl(path, [ROW])
    assert read_jsonl(path) == [ROW, ROW]


def test_a_full_device_is_named(tmp_path: Path) -> None:
    (tmp_path / "j").symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device"):
        append_jsonl(tmp_path / "j", [ROW])


def test_answers_go_on_after_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with open_answers(one_file(path)) as answers:
        answers.append_all({("MMStar", "1"): DONE})
        with room(path.stat().st_size + 10), pytest.raises(UserError, match="make room"):
            answers.append_all({("MMStar", "2"): DONE})
        assert list(answers.found) == [("MMStar", "1")], "what is not on the disk does not count"
    with open_answers(one_file(path)) as answers:
        answers.append_all({("MMStar", "2"): DONE})
    with open_answers(one_file(path)) as answers:
        assert list(answers.found) == [("MMStar", "1"), ("MMStar", "2")]


@pytest.mark.parametrize("line", [b'{"key": "b", "mo', b"3", b"\x00\x00", b"\xff"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "j"
    append_jsonl(path, [ROW])
    with path.open("ab") as file:
        file.write(line + b"\n")
    append_jsonl(path, [ROW])
    with pytest.raises(UserError, match=r"line 2 of .*/j is damaged; remove it"):
        read_jsonl(path)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    append_jsonl(tmp_path / "answers.jsonl", [ROW])
    with (
        pytest.raises(UserError, match="holds no responses"),
        open_answers(one_file(tmp_path / "answers.jsonl")),
    ):
        pass


def test_reading_cuts_nothing_that_another_process_is_writing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    append_jsonl(path, [ROW])
    with path.open("ab", buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b'{"key": ')
        assert read_jsonl(path) == [ROW]
        waiting = threading.Thread(target=append_jsonl, args=(path, [{"key": "c"}]))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "it waits for the other's line"
        other.write(b'"b"}\n')
        fcntl.flock(other, fcntl.LOCK_UN)
    waiting.join()
    assert [row["key"] for row in read_jsonl(path)] == ["a", "b", "c"]


def test_two_processes_share_a_journal(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rilbench.jsonl_log import *\n"
        "for number in range(100):\n"
        "    append_jsonl(Path('j'), [{'key': sys.argv[1] + str(number), 'text': 'x' * 500}])\n"
        "    read_jsonl(Path('j'))\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, name], cwd=tmp_path) for name in "ab"]
    assert [other.wait() for other in others] == [0, 0]
    expected = {f"{name}{number}" for name in "ab" for number in range(100)}
    assert {row["key"] for row in read_jsonl(tmp_path / "j")} == expected


def test_each_line_is_where_its_writer_was_told(tmp_path):
    path = tmp_path / "j"
    told = append_jsonl(path, [{"a": 1}])
    told += append_jsonl(path, [{"b": "\n\u2028"}, {}, {"c": [1, 2]}])
    assert told == [start for start, _ in iter_jsonl(path)]
    assert append_jsonl(path, []) == []


def test_what_comes_during_a_sync_is_written_by_the_next():
    batches = []

    def slowly(items):
        time.sleep(0.05)
        batches.append(list(items))

    async def add():
        async with BatchedWriter(slowly) as writer:
            for item in range(50):
                writer.add(item)
                await asyncio.sleep(0.002)

    asyncio.run(add())
    assert [item for batch in batches for item in batch] == list(range(50))
    assert len(batches) < 25


def test_an_interruption_loses_nothing_that_was_added():
    written = []

    def slowly(items):
        time.sleep(0.1)
        written.extend(items)

    async def add():
        async with BatchedWriter(slowly) as writer:
            writer.add(1)
            await asyncio.sleep(0.01)  # the first is being written
            writer.add(2)

    async def interrupted():
        task = asyncio.create_task(add())
        await asyncio.sleep(0.05)  # it waits for its end
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert sorted(written) == [1, 2]


def test_what_cannot_be_written_stops_the_next(tmp_path):
    def full(_):
        raise UserError("the disk is full")

    async def add():
        async with BatchedWriter(full) as writer:
            while True:
                writer.add(1)
                await asyncio.sleep(0.01)

    with pytest.raises(UserError, match="disk is full"):
        asyncio.run(asyncio.wait_for(add(), 5))
