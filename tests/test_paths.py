"""Files appear whole or not at all, and nothing is left over."""

import time
from pathlib import Path
from threading import Thread

import pytest

from rilbench.errors import UserError
from rilbench.paths import locate, whole_file


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_nothing_is_left_over_of_a_file_that_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with pytest.raises(UnicodeEncodeError), whole_file(path) as part:
        part.write_text("\ud800", encoding="utf-8")
    path.mkdir()
    with pytest.raises(OSError, match="directory"), whole_file(path) as part:
        part.write_text("whole")
    assert [*tmp_path.iterdir()] == [path]


def test_an_unknown_nano_model_names_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"choose from 72b, 78b, dev.parquet, .*, restyled$"):
        locate("nano:foo")
    monkeypatch.setenv("RILBENCH_NANO", "nowhere")
    with pytest.raises(UserError, match=r"run: rilbench nano build --out nowhere$"):
        locate("nano:foo")


def test_a_file_has_one_writer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "q.parquet"

    def write() -> None:
        with whole_file(path) as part:
            part.write_text("second")

    second = Thread(target=write)
    with whole_file(path) as part:
        part.write_text("first")
        second.start()
        time.sleep(0.2)
        assert part.read_text() == "first"
        monkeypatch.setattr("rilbench.paths._SOON", 0.1)
        with pytest.raises(UserError, match=r"another process is writing .*q.parquet"):
            write()
    second.join()
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]
