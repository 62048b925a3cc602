"""The user's keys: read from the environment, given to nobody who asks no server of theirs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rilbench.api_keys import (
    ENDPOINT_KEY,
    JUDGE_KEY,
    endpoint_key,
    judge_key,
    judge_keys,
    without_key,
    without_keys,
    without_query_values,
)
from rilbench.errors import UserError
from rilbench.judge.server import serve_judge
from rilbench.processes import start_guarded, stop_group
from rilbench.serving import serve

KEY = "sk-very-secret-7"
HOST = "https://api.example.com:8443/v1"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY, KEY)
    monkeypatch.setenv(ENDPOINT_KEY, KEY)


@pytest.mark.parametrize("value", ["", " \n", None])
def test_an_empty_key_is_none(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    assert (judge_key(), endpoint_key()) == (KEY, KEY)
    for name in (JUDGE_KEY, ENDPOINT_KEY):
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    assert (judge_key(), endpoint_key()) == ("none", "none")


def test_the_closest_key_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert endpoint_key("72b", HOST) == KEY
    monkeypatch.setenv(f"{ENDPOINT_KEY}_72B", "of the teacher")
    assert endpoint_key("72b") == endpoint_key("72b", HOST) == "of the teacher"
    assert endpoint_key("78b") == endpoint_key() == KEY
    monkeypatch.setenv(f"{ENDPOINT_KEY}_API_EXAMPLE_COM", "of the host")
    assert endpoint_key("72b", HOST) == "of the host"
    assert endpoint_key("72b", "http://other.org/v1") == "of the teacher"
    monkeypatch.setenv(f"{JUDGE_KEY}_API_EXAMPLE_COM", "of the judge's host")
    assert judge_keys([HOST, "http://other.org/v1"]) == ["of the judge's host", KEY]
    assert judge_keys(HOST) == ["of the judge's host"]


def test_a_key_leaves_a_text_and_none_does_not() -> None:
    assert without_key(f"bad key {KEY}!", KEY) == "bad key …!"
    assert without_key("none here", "none") == without_key("none here", "") == "none here"


def environments() -> list[bytes]:
    """Of all processes below this one, as the system has them."""
    below = psutil.Process().children(recursive=True)
    return [Path(f"/proc/{child.pid}/environ").read_bytes() for child in below]


def test_neither_guard_nor_child_has_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    for allowed in (False, True):
        log = tmp_path / "log"
        guard = start_guarded(command, log, {"MORE": "1"}, keys=allowed)
        try:
            while not log.read_bytes():
                time.sleep(0.05)
            found = environments()
            assert len(found) == 2
            for each in found:
                assert (KEY.encode() in each) is allowed
                assert b"MORE=1" in each
                assert b"PATH=" in each
        finally:
            stop_group(guard)


def test_the_rule_judge_has_none() -> None:
    with serve_judge():
        (found,) = environments()
        assert KEY.encode() not in found


def test_transformers_serve_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    program = tmp_path / "transformers"
    program.write_text(f"#!/bin/sh\ntr '\\0' '\\n' < /proc/self/environ > {seen}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").symlink_to(os.path.realpath("/proc/self/exe"))
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(UserError, match="did not come up"),
        serve(tmp_path / "model", log=tmp_path / "log"),
    ):
        pass
    assert "HF_HUB_OFFLINE=1" in seen.read_text()
    assert KEY not in seen.read_text()


def test_a_program_started_without_them() -> None:
    done = subprocess.run(["env"], env=without_keys(os.environ), capture_output=True, check=True)
    assert KEY.encode() not in done.stdout
    assert b"PATH=" in done.stdout


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fm@http://h/v1?api-key=S", "fm@http://h/v1?api-key=…"),
        ("https://h/o?api-version=2024-10-21&code=S", "https://h/o?api-version=2024-10-21&code=…"),
        ("http://a/v1?k=S, http://b/v1?k=S", "http://a/v1?k=…, http://b/v1?k=…"),
        ("m@http://a/v1?k=S,m@http://b/v1?k=S", "m@http://a/v1?k=…,m@http://b/v1?k=…"),
        ("http://a/v1?k=S,S", "http://a/v1?k=…"),
        ("http://a/v1?SSS", "http://a/v1?…"),
        ("[http://a/v1?k=S] is down? k=v", "[http://a/v1?k=… is down? k=v"),
        ("url: 'http://a/v1?k=S'\nkey: v", "url: 'http://a/v1?k=…'\nkey: v"),
        ("Is it so? See http://h/v1", "Is it so? See http://h/v1"),
    ],
)
def test_what_an_address_is_asked_with_is_not_shown(text: str, shown: str) -> None:
    assert without_query_values(text) == shown
