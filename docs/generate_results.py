"""Write tables of results/nano/README.md into other pages, between two marks.

`python docs/generate_results.py` writes them: a reader's first questions into the project's README,
and RIL beside each other method into docs/neighbours.md. With `--check` it only says which page is
not what the run results say, and exits with 1 if one is not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rilbench.lab.lab_paths import LabPaths
from rilbench.lab.report import front_table, neighbours_table

ROOT = Path(__file__).parents[1]
TABLES = {ROOT / "README.md": front_table, ROOT / "docs" / "neighbours.md": neighbours_table}
FIRST, LAST = "<!-- written by docs/generate_results.py -->\n", "<!-- to here -->"


def pages() -> dict[Path, str]:
    """Return each page with its table as it should be."""
    found = {}
    for page, table in TABLES.items():
        before, _, rest = page.read_text(encoding="utf-8").partition(FIRST)
        _, _, after = rest.partition(LAST)
        text = table(LabPaths(results=ROOT / "results" / "nano"))
        found[page] = f"{before}{FIRST}\n{text}\n\n{LAST}{after}"
    return found


def main() -> int:
    """Write the pages, or check them."""
    stale = [(p, text) for p, text in pages().items() if text != p.read_text(encoding="utf-8")]
    if "--check" in sys.argv[1:]:
        for page, _ in stale:
            sys.stderr.write(f"{page.relative_to(ROOT)}: python docs/generate_results.py\n")
        return 1 if stale else 0
    for page, text in stale:
        page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
