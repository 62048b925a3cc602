"""How soon `rilbench view` has its first page painted, on a ledger of a million answers.

``make bench`` writes ``results/bench/view.json``. The server is a process of its own and new for
each load, and so is Chromium: nothing is cached. The paint is what the browser reports as its
first contentful one, from the start of the navigation, which begins as soon as the server has
printed its address; ``listening_seconds`` is how long that took, with the table read. On a machine
that does other work these times are that much longer. The processor's seconds, of the table before
the address is printed and of a page, hardly change.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ledger import QUESTIONS, fill, models

ANSWERS = 1_000_000
LOADS = 5
LIMIT = 1.0
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
OUT = Path(__file__).parents[2] / "results" / "bench" / "view.json"
SERVER = [sys.executable, "-c", "from rilbench.cli import main; main()", "view", "--db"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
PAINTED = "performance.getEntriesByName('first-contentful-paint').length"
COMPUTED = """
import sys, time
from pathlib import Path
from rilbench.view.server import View
start = time.process_time()
view = View(Path(sys.argv[1]))
view.warm()
read = time.process_time()
view.warm()
print(read - start, time.process_time() - read)
"""


def load(path: Path) -> dict[str, float]:
    """Start a server and a browser; return seconds of the first and of the second page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as drivers:
        browser = drivers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto("about:blank")
        start = time.perf_counter()
        with subprocess.Popen([*SERVER, str(path)], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split(" at ")[1].split()[0]
            listening = time.perf_counter() - start
            found = {"listening": listening}
            for name in ("first_paint", "next_paint"):
                page.goto(address)
                page.wait_for_function(PAINTED)
                found[name] = float(page.evaluate(PAINT)) / 1000
            server.terminate()
        browser.close()
    return found


def computed(path: Path) -> list[float]:
    """Processor seconds of reading the table, and of a page, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", COMPUTED, str(path)], capture_output=True, text=True, check=True
    )
    return [float(each) for each in done.stdout.split()]


def main(path: Path | None = None) -> None:
    """Make the ledger, unless one is given, measure, and write the result."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "million.db"
            fill(path, ANSWERS / len(models()) / sum(QUESTIONS.values()))
        loads = [load(path) for _ in range(LOADS)]
        sides = zip(*(computed(path) for _ in range(LOADS)), strict=True)
        read, page = (round(statistics.median(side), 3) for side in sides)
    result = {
        "command": "make bench",
        "answers": ANSWERS,
        "limit": LIMIT,
        **{
            f"{name}_seconds": round(statistics.median(each[name] for each in loads), 3)
            for name in loads[0]
        },
        "first_paint_seconds_most": round(max(each["first_paint"] for each in loads), 3),
        "read_cpu_seconds": read,
        "page_cpu_seconds": page,
        "loads": LOADS,
        "load_average": round(os.getloadavg()[0], 1),
        "cores": os.cpu_count(),
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
