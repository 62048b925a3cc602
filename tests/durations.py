"""Record how long each test file took in the last `make test`: ``results/bench/tests.json``.

Seconds of one machine on one day: read them against each other, and for what to speed up next.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
JUNIT = ROOT / "runs" / "junit.xml"
OUT = ROOT / "results" / "bench" / "tests.json"


def main() -> int:
    """Read pytest's JUnit file and write the sums of each file."""
    if not JUNIT.exists():
        sys.stderr.write(f"{JUNIT} does not exist; run make test first\n")
        return 1
    (suite,) = ElementTree.parse(JUNIT).getroot()
    seconds: Counter[str] = Counter()
    for case in suite.iter("testcase"):
        seconds[case.attrib["classname"].split(".Test")[0]] += float(case.attrib["time"])
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=ROOT, capture_output=True, text=True, check=True)
    result = {
        "command": "make durations",
        "commit": commit.stdout.strip(),
        "tests": int(suite.attrib["tests"]),
        "failures": int(suite.attrib["failures"]) + int(suite.attrib["errors"]),
        "wall_seconds": round(float(suite.attrib["time"])),
        "file_seconds": {name: round(value, 1) for name, value in seconds.most_common()},
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
