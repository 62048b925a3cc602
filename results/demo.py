"""Measures `make demo` in a fresh clone: seconds, peak memory and scores, and its report.

``make results-demo`` writes ``results/nano/demo.json``, and ``docs/report.png`` where Chromium is
installed. The clone has no environment and no caches; kit environments go into it as well. Only
uv's download cache is the machine's.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "nano" / "demo.json"
PICTURE = ROOT / "docs" / "report.png"
CHROMIUM = Path("/usr/bin/chromium")


class PeakMemory:
    """Peak increase of the machine's memory in use, sampled twice a second."""

    def __init__(self) -> None:
        self.start = psutil.virtual_memory().available
        self.least = self.start
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.done.wait(0.5):
            self.least = min(self.least, psutil.virtual_memory().available)

    def gib(self) -> float:
        """Stop watching and return the peak in GiB."""
        self.done.set()
        self.thread.join()
        return round((self.start - self.least) / 2**30, 2)


def report_seconds(clone: Path) -> float:
    """CPU seconds of ``rilbench report`` for the demo's run."""
    (metrics,) = clone.glob("runs/*/metrics.jsonl")
    before = os.times()
    command = [str(clone / ".venv/bin/rilbench"), "report", metrics.parent.name]
    subprocess.run(command, cwd=clone, capture_output=True, check=True)
    after = os.times()
    used = after.children_user + after.children_system
    if CHROMIUM.exists():
        picture_of(clone / "report.html")
    return round(used - before.children_user - before.children_system, 1)


def picture_of(page: Path) -> None:
    """Write what a reader sees first of a report."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as drivers:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = drivers.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page(viewport={"width": 1240, "height": 1500}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready]")
        tab.wait_for_timeout(500)
        tab.screenshot(path=PICTURE)
        browser.close()


def main() -> int:
    """Clone, run, measure, write."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "rilbench"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
        ).stdout.strip()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RILBENCH")}
        environment["RILBENCH_KITS"] = str(Path(folder) / "kits")
        memory, start = PeakMemory(), time.monotonic()
        status = subprocess.run(["make", "demo"], cwd=clone, env=environment, check=False)
        seconds, peak = round(time.monotonic() - start), memory.gib()
        again = time.monotonic()
        second = subprocess.run(["make", "demo"], cwd=clone, env=environment, check=False)
        seconds_again = round(time.monotonic() - again)
        table = [str(clone / ".venv/bin/rilbench"), "table", "--format", "json"]
        shown = subprocess.run(table, cwd=clone, capture_output=True, text=True, check=True)
        rows = [r for r in json.loads(shown.stdout) if r["source"] == "measured"]
        report = report_seconds(clone)
    means = {row["method"]: row["average"] for row in rows}
    result = {
        "command": "make results-demo",
        "commit": commit,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "exit": [status.returncode, second.returncode],
        "seconds": seconds,
        "seconds_of_a_second_make_demo": seconds_again,
        "peak_memory_gib": peak,
        "cpu_seconds_of_its_report": report,
        "mean": {method: round(mean, 1) for method, mean in means.items()},
        "gain": round(means["ril"] - means["base"], 1),
        "rows": rows,
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps({k: v for k, v in result.items() if k != "rows"}) + "\n")
    return status.returncode or second.returncode


if __name__ == "__main__":
    sys.exit(main())
