"""Folders that are whole or absent."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rilbench.evaluate.new_folder import NewFolder, is_whole


def made(place: Path, text: str = "text", *, replace: bool = False) -> None:
    new = NewFolder(place)
    try:
        (new.path / "questions").write_text(text)
        (new.path / "pictures").mkdir()
        (new.path / "pictures" / "1.png").write_bytes(b"picture")
        assert not is_whole(new.path)
        new.complete(replace=replace)
    finally:
        new.close()


def test_it_is_absent_until_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "abc"
    new = NewFolder(place)
    assert not place.exists()
    new.close()
    assert not new.path.exists()
    made(place)
    assert is_whole(place)
    (place / "more").touch()  # by a kit that reads it
    assert is_whole(place)
    made(place, "other")
    assert (place / "questions").read_text() == "text", "another was quicker"
    made(place, "other", replace=True)
    assert (place / "questions").read_text() == "other"
    assert is_whole(place)
    assert sorted(path.name for path in place.parent.iterdir()) == ["abc", "building"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "questions").write_text("tex"),
        lambda place: (place / "questions").unlink(),
        lambda place: (place / "pictures" / "1.png").unlink(),
        lambda place: (place / "pictures" / "1.png").write_bytes(b""),
        lambda place: (place / "files.json").write_text("{"),
        lambda place: (place / "files.json").write_text("[]"),
        lambda place: (place / "files.json").unlink(),
    ],
)
def test_one_that_lost_something_is_made_again(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    place = tmp_path / "abc"
    made(place)
    damage(place)
    assert not is_whole(place)
    made(place, "again")
    assert (place / "questions").read_text() == "again"
    assert is_whole(place)


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rilbench.evaluate.new_folder import NewFolder\n"
        "new = NewFolder(Path(sys.argv[1])); (new.path / 'tsv').write_text('gigabytes')\n"
        "print(new.path, flush=True); input()"
    )
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "abc")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    assert killed.stdout is not None
    assert living.stdout is not None
    left, kept = (Path(process.stdout.readline().strip()) for process in (killed, living))
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (left / "tsv").is_file()
    made(tmp_path / "def")
    assert not left.exists()
    assert (kept / "tsv").is_file()
    living.kill()
    living.wait()
