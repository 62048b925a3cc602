"""How often the intervals hold the truth and the paired test errs, by simulation.

``make bench-stats`` writes ``results/bench/coverage.json``; fixed seeds, so a second run gives the
same file. The models and their questions are those of ``tests/support/simulated.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "coverage.json"
sys.path.insert(0, str(ROOT / "tests" / "support"))


def main() -> None:
    """Simulate every setting and write the result."""
    from simulated import REPETITIONS, SETTINGS, SHARED, coverage, draw, rejections

    found = []
    for seed, (n, accuracy) in enumerate(SETTINGS):
        accuracies = (accuracy, accuracy)
        draws = draw(n, accuracies, REPETITIONS, seed)
        plain, paired = coverage(draws, accuracies)
        setting = {"n": n, "accuracy": accuracy, "repetitions": REPETITIONS}
        outcome = {"coverage_plain": plain, "coverage_paired": paired}
        found.append({**setting, **outcome, "paired_test_false_alarms": rejections(draws)})
        sys.stderr.write(f"{found[-1]}\n")
    result = {
        "command": "make bench-stats",
        "level": 0.95,
        "shared_difficulty": SHARED,
        "settings": found,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{OUT.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
