"""A full disk or a folder that may not be written is one line on standard error."""

import errno
import os

import pytest

from rilbench import cli


def test_an_error_of_the_disk_is_one_line_and_any_other_is_a_bug(monkeypatch, capsys):
    def run(number):
        raise OSError(number, os.strerror(number), "/data/work")

    for number, remedy in cli._REMEDIES.items():
        monkeypatch.setattr(cli, "app", lambda number=number: run(number))
        with pytest.raises(SystemExit, match="1"):
            cli.main()
        line = f"rilbench: /data/work: {os.strerror(number)}; {remedy}, then run again\n"
        assert capsys.readouterr().err == line
    kinds = {errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP, errno.ENOTEMPTY, errno.EIO}
    assert kinds <= cli._REMEDIES.keys()
    monkeypatch.setattr(cli, "app", lambda: run(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        cli.main()
