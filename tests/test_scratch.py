"""Temporary folders: the user's own, short, removed, and what killed processes left too."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.processes import start_guarded, stop_group
from rilbench.scratch import LONGEST, Scratch, is_locked, user_folder


@pytest.fixture(params=["/tmp", "/tmp/" + "a-long-folder-of-a-batch-system/" * 3])
def tmpdir_of(request, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", request.param)


def test_it_is_short_enough_for_sockets_whatever_tmpdir_is(tmpdir_of):
    scratch = Scratch()
    assert len(str(scratch.path)) <= LONGEST
    assert scratch.path.parent.stat().st_mode & 0o777 == 0o700
    assert str(os.getuid()) in scratch.path.parent.name, "each user has another"
    scratch.close()
    assert not scratch.path.exists()


def test_another_users_folder_is_not_used(tmp_path, monkeypatch):
    real = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: real + 70_000)
    with pytest.raises(UserError, match="set TMPDIR to a folder that you can write to"):
        user_folder()  # whatever is made belongs to the real user
    for place in (tmp_path, *map(Path, ("/tmp", "/var/tmp", "/dev/shm"))):
        with suppress(OSError):
            (place / f"rilbench-{real + 70_000}").rmdir()


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not():
    code = "from rilbench.scratch import Scratch; s = Scratch(); print(s.path, flush=True); input()"
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    left, kept = (Path(process.stdout.readline().strip()) for process in (killed, living))
    killed.kill()
    killed.wait()
    assert left.is_dir()
    assert is_locked(kept / ".lock")
    Scratch().close()
    assert not left.exists()
    assert kept.is_dir()
    living.kill()
    living.wait()
    Scratch().close()
    assert not kept.exists()


def test_a_guarded_process_leaves_nothing_in_the_temporary_folder(tmp_path):
    code = "import tempfile; print(tempfile.mkdtemp(), flush=True)"
    guard = start_guarded([sys.executable, "-c", code], tmp_path / "log", {})
    guard.wait()
    made = Path((tmp_path / "log").read_text().strip())
    assert made.is_dir()
    stop_group(guard)
    assert not made.exists()
    assert not made.parent.exists()
