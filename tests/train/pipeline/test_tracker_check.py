"""Trackers before a run: known, installed, let in; each with one line and what helps."""

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from rilbench.cli import app
from rilbench.errors import UserError
from rilbench.train.pipeline import tracker_check
from rilbench.train.pipeline.tracker_check import TRACKERS, check_tracker_names, check_trackers

NEEDING_A_PACKAGE = [name for name, tracker in TRACKERS.items() if tracker.module]
OURS = ("WANDB_", "SWANLAB_", "MLFLOW_", "TRACKIO_", "CLEARML_", "HF_")


@pytest.fixture(autouse=True)
def nobody(tmp_path, monkeypatch):
    """A user who is logged in nowhere."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)


def test_they_are_all_of_verls_but_those_with_a_reason():
    tracking = pytest.importorskip("verl.utils.tracking").Tracking
    assert {*TRACKERS, *tracker_check._NOT_OFFERED} == set(tracking.supported_backend)


@pytest.mark.parametrize("name", NEEDING_A_PACKAGE)
def test_what_is_not_installed_is_told_with_the_command_that_installs_it(monkeypatch, name):
    monkeypatch.setattr(tracker_check, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"^--log {name} needs a package: uv pip install {name}$"):
        check_trackers(["file", name])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("swanlabb", "--log swanlabb is not known; use one of tensorboard, wandb, swanlab"),
        ("vemlp_wandb", "not offered: Volcengine's package is in no public index.*; use wandb"),
        ("rl_insight", "not offered: it watches verl's processes and keeps no runs"),
    ],
)
def test_another_name_is_refused_also_by_a_dry_run(name, words):
    with pytest.raises(UserError, match=words) as told:
        check_tracker_names([name])
    for command in (["train", "--recipe", "both", "--student", "nano"], ["run", "nano"]):
        done = CliRunner().invoke(app, [*command, "--dry-run", "--log", name])
        assert (done.exit_code, done.exception is None) == (1, False)
        assert str(done.exception) == str(told.value)


def test_file_and_console_need_nothing():
    check_trackers(["file", "console"])


@pytest.mark.parametrize(
    ("name", "words", "offline"),
    [
        ("wandb", "run: wandb login, or set WANDB_API_KEY, or", "WANDB_MODE=offline"),
        ("swanlab", "run: swanlab login, or set SWANLAB_API_KEY, or", "SWANLAB_MODE=offline"),
        ("clearml", "run: clearml-init, or set CLEARML_API_HOST, .*", "CLEARML_OFFLINE_MODE=1"),
    ],
)
def test_without_a_login_it_is_refused_and_offline_it_needs_none(name, words, offline):
    told, reason = in_a_process(name)
    assert told == 1
    assert reason.startswith(f"--log {name} has no login; {words.partition(', .*')[0]}")
    assert offline in reason
    assert "\n" not in reason
    assert in_a_process(name, **dict([offline.split("=")])) == (0, "")


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:{port}"}),
        ("wandb", {"WANDB_BASE_URL": "http://127.0.0.1:{port}", "WANDB_API_KEY": "a" * 40}),
        ("swanlab", {"SWANLAB_API_HOST": "http://127.0.0.1:{port}", "SWANLAB_API_KEY": "a"}),
        (
            "clearml",
            {
                "CLEARML_API_HOST": "http://127.0.0.1:{port}",
                "CLEARML_API_ACCESS_KEY": "a",
                "CLEARML_API_SECRET_KEY": "b",
            },
        ),
        ("trackio", {"TRACKIO_SPACE_ID": "me/it", "HF_ENDPOINT": "http://127.0.0.1:{port}"}),
    ],
)
def test_a_server_that_lets_nobody_in_is_told_before_the_run(name, variables):
    with refusing() as port:
        given = {key: value.format(port=port) for key, value in variables.items()}
        if name == "trackio":
            given["HF_TOKEN"] = "hf_wrong"
        code, reason = in_a_process(name, **given)
    assert code == 1
    assert reason.startswith(f"--log {name} has no login; ")
    assert "\n" not in reason


def test_an_mlflow_without_a_server_and_a_local_trackio_need_no_login():
    for name in ("mlflow", "trackio"):
        assert in_a_process(name) == (0, "")


def in_a_process(name, **variables):
    """Check a tracker in a process of its own, as its library keeps what it read.

    Returns the exit status and what was told.
    """
    if importlib.util.find_spec(TRACKERS[name].module) is None:
        pytest.skip(f"{name} is not installed")
    code = (
        "import sys\n"
        "from rilbench.errors import UserError\n"
        "from rilbench.train.pipeline.tracker_check import check_trackers\n"
        "try:\n"
        "    check_trackers(sys.argv[1:])\n"
        "except UserError as error:\n"
        "    print(error, file=open('reason', 'w'), end='')\n"
        "    sys.exit(1)\n"
    )
    Path("reason").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code, name],
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, Path("reason").read_text()


class Refusal(BaseHTTPRequestHandler):
    """Answers 401 to everything."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self):
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def refusing():
    """The port of a server that lets nobody in."""
    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
