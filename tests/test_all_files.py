"""`make test-all`: its command starts by itself, and does not repeat what passed."""

import json
import subprocess
import sys
from pathlib import Path

import all_files
import pytest


def test_the_command_starts_outside_pytest() -> None:
    """A script's folder is its only path: pytest's settings are not there."""
    folder = Path(all_files.__file__).parent
    command = [sys.executable, "-c", "import all_files"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_what_has_not_passed_at_this_commit_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed file runs again; at another commit all files do."""
    monkeypatch.setattr(all_files, "OUT", tmp_path / "test-all.json")
    git = {"rev-parse": "one", "status": ""}
    monkeypatch.setattr(all_files, "git", lambda command, *_: git[command])
    record = all_files.Record()
    record.add("tests/a.py", True, 1.0, "1 passed")
    record.add("tests/b.py", False, 1.0, "1 failed")
    assert json.loads(all_files.OUT.read_text())["passed"] is False
    names = ["tests/a.py", "tests/b.py", "tests/c.py"]
    assert all_files.Record().missing(names) == names[1:]
    git["rev-parse"] = "two"
    assert all_files.Record().missing(names) == names
