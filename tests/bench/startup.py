"""How long `rilbench --help` takes. ``make bench`` writes ``results/startup.json``.

Peers, as measured by their users: TRL 0.17 s, lmms-eval 0.05 s. The bare interpreter's time, from
the same run, says how fast the machine is.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15
OUT = Path(__file__).parents[2] / "results" / "startup.json"


def median_seconds(command: list[str]) -> float:
    """Median wall time of a command, after one run that warms the caches."""
    times = []
    for run in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        if run:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure both and write the result."""
    python = median_seconds([sys.executable, "-c", "pass"])
    script = median_seconds([str(Path(sys.executable).parent / "rilbench"), "--help"])
    result = {
        "command": "make bench",
        "help_seconds": round(script, 3),
        "python_seconds": round(python, 3),
        "ratio": round(script / python, 1),
        "runs": RUNS,
        "python": platform.python_version(),
    }
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
