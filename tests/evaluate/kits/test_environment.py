"""Kit environments: built by uv for real, from a wheel made here, without a network."""

import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.kits.environment import (
    ensure_environment,
    environment_name,
    is_complete,
    kits_folder,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "kits"
    monkeypatch.setenv("RILBENCH_KITS", str(folder))
    return folder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    wheel = tmp_path / "toykit-1.0-py3-none-any.whl"
    info = "toykit-1.0.dist-info"
    files = {
        "toykit.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: toykit\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, content)
    path = tmp_path / "toykit.lock"
    path.write_text(f"toykit @ {wheel.as_uri()}\n")
    return path


def test_is_built_once_and_works_where_it_ends_up(home: Path, lock: Path) -> None:
    (home / f"{environment_name('toykit', lock)}.building-old").mkdir(parents=True)
    lines: list[str] = []
    python = ensure_environment("toykit", lines.append, lock=lock)
    assert python == home / environment_name("toykit", lock) / "bin" / "python"
    code = "import sys, toykit; print(toykit.ANSWER, sys.prefix)"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["42", str(home / environment_name("toykit", lock))]
    assert any("toykit" in line for line in lines)
    # Neither this build's working folder nor that of one that was killed before is left.
    assert {path.suffix for path in home.iterdir()} <= {"", ".lock"}

    lines.clear()
    assert ensure_environment("toykit", lines.append, lock=lock) == python
    assert lines == []
    lock.write_text(lock.read_text() + "# another pin\n")
    assert environment_name("toykit", lock) != python.parent.parent.name


def test_two_builders_make_one(home: Path, lock: Path) -> None:
    lines: list[str] = []
    threads = [
        threading.Thread(
            target=ensure_environment, args=("toykit", lines.append), kwargs={"lock": lock}
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("making the environment" in line for line in lines) == 1
    assert (home / environment_name("toykit", lock) / "bin" / "python").exists()


def test_a_failed_build_says_why_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    lock = tmp_path / "bad.lock"
    lock.write_text(f"absent @ {(tmp_path / 'absent-1.0-py3-none-any.whl').as_uri()}\n")
    with pytest.raises(UserError, match=r"uv could not make .*absent-1\.0"):
        ensure_environment("toykit", lock=lock)
    assert [path.suffix for path in home.iterdir()] == [".lock"]


def works(python: Path) -> bool:
    return subprocess.run([python, "-c", "import toykit"], capture_output=True).returncode == 0


@pytest.mark.parametrize("damage", ["empty", "no python", "dangling", "no packages", "a file"])
def test_a_damaged_environment_is_built_again(home: Path, lock: Path, damage: str) -> None:
    place = home / environment_name("toykit", lock)
    if damage == "empty":
        (place / "lib").mkdir(parents=True)
    elif damage == "a file":
        home.mkdir()
        place.write_text("")
    else:
        python = ensure_environment("toykit", lock=lock)
        if damage == "no packages":
            for path in place.glob("lib/python*/site-packages/toykit*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            python.unlink()
            if damage == "dangling":
                python.symlink_to(home / "nowhere")
    assert not is_complete(place)
    lines: list[str] = []
    assert works(ensure_environment("toykit", lines.append, lock=lock))
    assert any("making the environment" in line for line in lines)
    assert {path.suffix for path in home.iterdir()} <= {"", ".lock"}
    lines.clear()
    ensure_environment("toykit", lines.append, lock=lock)
    assert lines == []


def test_unknown_kit(home: Path) -> None:
    with pytest.raises(UserError, match="no kit 'nokit'"):
        ensure_environment("nokit")


def test_where_environments_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RILBENCH_KITS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kits_folder() == tmp_path / "rilbench" / "kits"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert kits_folder() == tmp_path / "me" / ".cache" / "rilbench" / "kits"
