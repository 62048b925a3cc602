"""What the command line says when a disk is full or a folder may not be written."""

import errno
import os

import pytest

from rilbench import cli


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EDQUOT, "make room"),
        (errno.EACCES, "another place"),
        (errno.EROFS, "another place"),
        (errno.EEXIST, "another place"),
        (errno.ENOTDIR, "another place"),
    ],
)
@pytest.mark.parametrize("name", ["/data/work", None])
def test_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    remedy: str,
    name: str | None,
) -> None:
    def run() -> None:
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr(cli, "app", run)
    with pytest.raises(SystemExit) as status:
        cli.main()
    assert status.value.code == 1
    said = capsys.readouterr().err
    where = f"{name}: " if name else ""
    assert said.startswith(f"rilbench: {where}{os.strerror(number)}; ")
    assert remedy in said
    assert said.count("\n") == 1


def test_another_error_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")

    monkeypatch.setattr(cli, "app", run)
    with pytest.raises(FileNotFoundError):
        cli.main()
