"""What the trainer's process tells the user while it trains, shown by the one that waits."""

from __future__ import annotations

import json
from pathlib import Path

from rilbench.ledger.records import utc_now

FILE = "notes.jsonl"
"""File of a run's folder with a line for each note."""


def leave_note(run_dir: Path, step: int, text: str) -> None:
    """Leave a line for the user; step 0 is before the first."""
    line = {"time": utc_now(), "step": step, "note": text}
    with (run_dir / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
