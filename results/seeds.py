"""RIL against Dr.GRPO with 2G own rows, from the same start, three seeds each.

``make results``. Goes on where it was interrupted. A seed varies the training loop (sampling, order
of questions, choice of saved rows, the discriminator's batches); student, teachers, saved responses
and questions stay. Writes ``results/nano/seeds.json`` and ``results/nano/seeds.md``.
"""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rilbench.checkpoint import inspect_checkpoint
from rilbench.evaluate.record import code_version
from rilbench.evaluate.suite import suite_columns
from rilbench.ledger import Evaluation, Ledger, latest
from rilbench.locations import locate

OUT = Path(__file__).parent / "nano"
WORK = Path("runs/seeds")
SEEDS = (0, 1, 2)
STEPS = 24
METHODS = ("ril", "dr-grpo")
STUDENT_T_95 = {2: 4.303}
"""Two-sided 95 % quantile of Student's t by degrees of freedom (pairs - 1)."""


def main() -> None:
    """Train what is missing, evaluate, and write the results."""
    db = WORK / "seeds.db"
    trained = [_train(method, seed) for seed in SEEDS for method in METHODS]
    models = [locate("nano:restyled"), *trained]
    # Two at a time: each server generates on one core.
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(_evaluate, db, i, models[i::2]) for i in range(2)]:
            done.result()
    with Ledger.open_read(db) as ledger:
        found = {e.fingerprint: e for e in latest(ledger.evaluations())}
    measured = [found[inspect_checkpoint(model).fingerprint] for model in models]
    _write(measured[0], measured[1:])


def _evaluate(db: Path, half: int, models: list[Path]) -> None:
    chosen = [part for model in models for part in ("--model", str(model))]
    work = str(WORK / f"eval-{half}")
    _rilbench("eval", "--suite", "nano", "--db", str(db), "--work", work, *chosen)


def _train(method: str, seed: int) -> Path:
    name = f"{method}-{seed}"
    folder = WORK / name
    _rilbench(
        *("train", "--recipe", "both", "--student", "nano", "--method", method),
        *("--run", name, "--runs", str(WORK), "--seed", str(seed), "--steps", str(STEPS)),
        *("--set", f"collection.folder={WORK / 'collection'}"),
        *(["--resume"] if folder.exists() else []),
    )
    return folder / "checkpoint"


def _rilbench(*arguments: str) -> None:
    subprocess.run([str(Path(sys.executable).parent / "rilbench"), *arguments], check=True)


def _row(evaluation: Evaluation) -> dict[str, float]:
    values = {s.benchmark: s.value for s in evaluation.scores}
    scores = {name: values[name] for name in suite_columns("nano")}
    assert all(value is not None for value in scores.values()), evaluation
    mean = statistics.fmean(v for v in scores.values() if v is not None)
    return {name: round(v, 2) for name, v in scores.items() if v is not None} | {
        "mean": round(mean, 2)
    }


def _write(start: Evaluation, measured: list[Evaluation]) -> None:
    rows = {
        method: [_row(measured[i * len(METHODS) + j]) for i in range(len(SEEDS))]
        for j, method in enumerate(METHODS)
    }
    pairs = [a["mean"] - b["mean"] for a, b in zip(rows["ril"], rows["dr-grpo"], strict=True)]
    half = STUDENT_T_95[len(pairs) - 1] * statistics.stdev(pairs) / math.sqrt(len(pairs))
    commit, dirty = code_version()
    result = {
        "command": "make results",
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "seeds": SEEDS,
        "steps": STEPS,
        "untrained": _row(start),
        **rows,
        "difference": {
            "per_seed": [round(p, 2) for p in pairs],
            "mean": round(statistics.fmean(pairs), 2),
            "student_t_95": [round(statistics.fmean(pairs) + s * half, 2) for s in (-1, 1)],
        },
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "seeds.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    columns = [*suite_columns("nano"), "mean"]
    lines = [
        "# RIL against Dr.GRPO on the laboratory's student",
        "",
        "Written by `make results`; the numbers with their commit are in `seeds.json`. Dr.GRPO has "
        f"2G own rows, so both have equal rows per update. Each run has {STEPS} steps; a seed "
        "varies the training loop only.",
        "",
        "| method | seed | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    named = [("untrained", "", _row(start))]
    named += [(m, str(s), row) for m in METHODS for s, row in zip(SEEDS, rows[m], strict=True)]
    for method, seed, row in named:
        lines.append(
            f"| {method} | {seed} | " + " | ".join(f"{row[c]:.1f}" for c in columns) + " |"
        )
    difference = result["difference"]
    lines += [
        "",
        f"RIL minus Dr.GRPO on the mean: {difference['mean']:+.1f} points (per seed "
        f"{', '.join(f'{p:+.1f}' for p in pairs)}; 95 % interval over seeds, Student's t: "
        f"{difference['student_t_95'][0]:+.1f} to {difference['student_t_95'][1]:+.1f}).",
    ]
    (OUT / "seeds.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
