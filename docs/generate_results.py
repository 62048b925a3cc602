"""Write the answers of results/nano/README.md into the project's README, between two marks.

`python docs/generate_results.py` writes them; with `--check` it only says whether they are still
what the run results say, and exits with 1 if not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.report import front_table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
FIRST, LAST = "<!-- written by docs/generate_results.py -->\n", "<!-- to here -->"


def page() -> str:
    """Return the README with the answers as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    table = front_table(LabPaths(results=ROOT / "results" / "nano"))
    return f"{before}{FIRST}\n{table}\n\n{LAST}{after}"


def main() -> int:
    """Write the page, or check it."""
    new = page()
    if "--check" in sys.argv[1:]:
        fresh = new == PAGE.read_text(encoding="utf-8")
        if not fresh:
            sys.stderr.write("README.md: python docs/generate_results.py\n")
        return 0 if fresh else 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
