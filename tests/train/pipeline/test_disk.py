"""Room on the disk is counted before a run starts."""

import shutil
from collections import namedtuple

import pytest

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.pipeline.disk import check_disk
from rilbench.train.pipeline.run_folder import Run

Usage = namedtuple("Usage", "total used free")
GIB = 1 << 30


def test_a_run_that_would_fill_the_disk_is_refused_with_what_helps(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: seen.append(path) or Usage(0, 0, free))
    big = Run(tmp_path / "runs" / "r", load_recipe("both", "qwen2.5-vl-7b"))
    free = 300 * GIB
    with pytest.raises(
        UserError, match=r"needs \d+\.\d GiB more .*steps.* and 300\.0 are free"
    ) as e:
        check_disk(big, 40_000)
    assert "schedule.keep" in str(e.value)
    assert seen == [tmp_path], "the folder that exists"
    free = 2000 * GIB
    check_disk(big, 40_000)


def test_what_is_there_already_needs_no_more_room(tmp_path, monkeypatch):
    nano = Run(tmp_path / "r", load_recipe("both", "nano"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))
    with pytest.raises(UserError, match="are free"):
        check_disk(nano, 8)
    nano.folder.mkdir()
    with (nano.folder / "step").open("wb") as file:
        file.truncate(GIB)
    check_disk(nano, 8)


def test_a_student_that_cannot_be_counted_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 0))
    own = load_recipe("both", "nano", None, ["student.model=nowhere", "student.name=own"])
    check_disk(Run(tmp_path / "r", own), 8)
