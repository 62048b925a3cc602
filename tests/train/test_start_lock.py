"""Starts wait for each other, say for whom, and not for ever; users do not meet."""

import pytest

from rilbench.errors import UserError
from rilbench.train.start_lock import one_start_at_a_time


def test_a_second_start_says_for_whom_it_waits_and_gives_up(tmp_path, monkeypatch):
    # A lock of its own: another test may start verl meanwhile.
    monkeypatch.setattr("rilbench.train.start_lock.user_folder", lambda: tmp_path)
    told = []
    with one_start_at_a_time(tmp_path / "first", told.append):
        assert told == []
        with (
            pytest.raises(UserError, match=r"first \(process \d+\) has not started within 0\.01"),
            one_start_at_a_time(tmp_path / "second", told.append, minutes=0.01),
        ):
            raise AssertionError("both started")
    (note,) = told
    assert note.startswith(f"waiting for the start of {tmp_path / 'first'} (process ")
    with one_start_at_a_time(tmp_path / "second", told.append):
        pass
    assert len(told) == 1
