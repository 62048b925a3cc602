"""All tests, file by file and two at a time, resumable: ``make test-all``.

A file that passed at this commit is not run again; the outcome is in ``results/test-all.json``.
What took longest the last time comes last.
Files that start verl run one after another: two starts of Ray at once run into its time limits.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tiers import VERL

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "test-all.json"
# Property tests try new examples each time.
PYTEST = (sys.executable, "-m", "pytest", "--hypothesis-profile=explore")
WORKERS = 2


def git(*arguments: str) -> str:
    """Return git's output."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Record:
    """The outcome of each file, written down after each."""

    def __init__(self) -> None:
        self.commit = git("rev-parse", "HEAD")
        self.dirty = bool(git("status", "--porcelain", "--", ":!results"))
        found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
        fresh = found.get("commit") != self.commit or self.dirty or found.get("dirty")
        self.files: dict[str, Any] = {} if fresh else found["files"]
        self.before = {name: each["seconds"] for name, each in found.get("files", {}).items()}
        """Seconds of the last time, at whatever commit."""
        self.lock = threading.Lock()

    def missing(self, names: list[str]) -> list[str]:
        """Those that have not passed."""
        return [name for name in names if not self.files.get(name, {}).get("passed")]

    def add(self, name: str, passed: bool, seconds: float, said: str) -> None:
        """Write a file's outcome, and show it."""
        with self.lock:
            self.files[name] = {"passed": passed, "seconds": round(seconds)}
            whole = all(each["passed"] for each in self.files.values())
            result = {"command": "make test-all", "commit": self.commit, "dirty": self.dirty}
            files = dict(sorted(self.files.items()))
            text = json.dumps({**result, "passed": whole, "files": files}, indent=2)
            OUT.write_text(text + "\n", encoding="utf-8")
            last = said.strip().splitlines()[-1:] or ["no output"]
            sys.stdout.write(f"{name}: {last[0]}\n" if passed else f"{said}\n{name}: failed\n")
            sys.stdout.flush()


def run(record: Record, names: list[str]) -> None:
    """Run files one after another."""
    for name in names:
        start = time.monotonic()
        done = subprocess.run(
            [*PYTEST, name], cwd=ROOT, capture_output=True, text=True, check=False
        )
        record.add(name, done.returncode == 0, time.monotonic() - start, done.stdout + done.stderr)


def main() -> int:
    """Run what has not passed yet at this commit."""
    # A shell starts what runs in the background deaf to Ctrl-C, which tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    record = Record()
    found = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
    left = sorted(record.missing(found), key=lambda name: record.before.get(name, 0))
    in_turn = [name for name in left if name.removeprefix("tests/") in VERL]
    batches = [in_turn, *([name] for name in left if name not in in_turn)]
    with ThreadPoolExecutor(WORKERS) as pool:
        for outcome in [pool.submit(run, record, names) for names in batches]:
            outcome.result()
    failed = record.missing(found)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
