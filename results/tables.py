"""The tables in Markdown that follow from other files here: ``make results-tables``.

``paper/tables.md`` has the paper's numbers, ``nano/table.md`` the nano sandbox's headline as
``rilbench table`` shows it. A test writes them again and compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from rilbench.evaluate.suite import suite_columns
from rilbench.lab.to_ledger import find_results, record_results
from rilbench.ledger import Ledger
from rilbench.table.build import Choice, build_table
from rilbench.table.render import render

RESULTS = Path(__file__).parent
_HEAD = "Written by `make results-tables`; do not edit.\n"
_STUDENTS = ("nano-paper", "nano-paper-72b", "nano-paper-78b")


def write(results: Path) -> None:
    """Write both files below ``results``."""
    files = sorted((RESULTS / "nano" / "runs" / "headline").rglob("*.json"))
    runs = find_results(files, "test").rows
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "l.db") as ledger:
        record_results(runs, ledger)
        paper = [
            ("The paper's tables", _HEAD),
            ("Tables 1 to 4", _markdown(ledger, Choice(paper=True, every=True))),
            ("Table 5", _markdown(ledger, Choice(ablations=True))),
        ]
        measured = [
            ("The nano sandbox's headline", f"{_HEAD}\nMeans over seeds, on the test questions."),
            ("Scores", _markdown(ledger, Choice(students=_STUDENTS))),
        ]
    _save(results / "paper" / "tables.md", paper)
    _save(results / "nano" / "table.md", measured)


def _markdown(ledger: Ledger, choice: Choice) -> str:
    return render(build_table(ledger, choice, suite_columns), "markdown")


def _save(path: Path, sections: list[tuple[str, str]]) -> None:
    (title, text), *others = sections
    parts = [f"# {title}\n\n{text.strip()}", *(f"## {name}\n\n{body}" for name, body in others)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    write(RESULTS)
