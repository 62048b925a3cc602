"""Worker processes, with small scripts in the place of a kit."""

import os
import sys
from pathlib import Path

import pytest

from rilbench.errors import UserError
from rilbench.evaluate.kits.worker_process import KitProcess, kit_environment

ECHO = """
import json, os, sys
print("noise for the log", file=sys.stderr)
for line in sys.stdin:
    request = json.loads(line)
    if request["phase"] == "die":
        sys.exit("out of memory")
    problem = request["job"].get("problem")
    print(json.dumps({"problem": problem}), flush=True)
"""


def start(tmp_path: Path) -> KitProcess:
    script = tmp_path / "worker.py"
    script.write_text(ECHO)
    return KitProcess(Path(sys.executable), script, tmp_path / "a" / "kit.log", kit_environment({}))


def test_jobs_one_after_another(tmp_path: Path) -> None:
    with start(tmp_path) as kit:
        kit.run("score", {})
        kit.submit("score", {"problem": "MMVet.tsv has no question"})
        with pytest.raises(UserError, match=r"MMVet\.tsv has no question"):
            kit.wait()
        kit.run("score", {})


def test_a_kit_that_cannot_be_imported_says_which_environment_to_remove(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("import a_package_that_is_gone")
    home = Path(sys.executable).parent.parent
    kit = KitProcess(Path(sys.executable), script, tmp_path / "kit.log", kit_environment({}))
    with kit, pytest.raises(UserError, match=rf"ModuleNotFoundError.* {home} is .* remove it"):
        kit.run("score", {})


def test_a_dead_worker_is_reported_with_its_log(tmp_path: Path) -> None:
    with start(tmp_path) as kit:
        with pytest.raises(UserError, match=r"kit failed: .*out of memory \(log: "):
            kit.run("die", {})
        with pytest.raises(UserError, match="kit failed"):
            kit.submit("score", {})


def test_worker_ends_with_the_block(tmp_path: Path) -> None:
    with start(tmp_path) as kit:
        pid = kit._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_keys_and_proxies_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "RILBENCH_JUDGE_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    there = kit_environment({"A": "1"})
    assert "http_proxy" not in there
    assert there["A"] == "1"
    assert there["PATH"] == os.environ["PATH"]
    assert "secret" not in there.values()
