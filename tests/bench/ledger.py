"""How long the table, the comparison and the gate take beside a large ledger. ``make bench``.

Writes ``results/bench/ledger.json``. The ledgers are made up: 29 evaluations of the paper's suite
with its numbers of questions are a million answers; the smaller ones ask a tenth and a hundredth
of the questions. A command's time is that of its whole process, less that of the same process with
a ledger of four evaluations, three of them seeds of one recipe, with one question in each
benchmark: what is imported for intervals belongs to the start.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from rilbench.ledger import Evaluation, Ledger, Sample, Score

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "ledger.json"
ROWS = (10_000, 100_000, 1_000_000)
REPEATS = 5
LIMITS = {"table": 1.0, "compare": 1.0, "check": 1.0}
"""Seconds beside a million answers."""

COMMANDS = {"table": ["table"], "compare": ["compare", "1", "2"], "check": ["check"]}
ENTRY = [sys.executable, "-c", "from rilbench.cli import main; main()"]
LEAST = 0.05
"""Seconds; of what is faster no growth is told, since it would be noise over noise."""

QUESTIONS = {
    "AI2D": 3088,
    "ChartQA": 2500,
    "MathVista": 1000,
    "MMB": 1164,
    "MMB-CN": 1164,
    "MM-Vet": 218,
    "MM-Vet-v2": 517,
    "MMMU": 900,
    "MMMU-Pro": 3460,
    "MMStar": 1500,
    "BLINK": 1901,
    "SEED": 14233,
    "SEED2+": 2277,
    "RWQA": 765,
}
GRADED = ("MM-Vet", "MM-Vet-v2")
STRATA = {"MMMU-Pro": ("MMMU_Pro_10c", "MMMU_Pro_V")}
STUDENTS = ("Qwen2.5-VL-7B", "Qwen2.5-VL-3B", "InternVL3-8B", "InternVL3-2B", "InternVL3-1B")
TEXT = "the chart shows that a larger share of these answers is right, so option B holds; " * 20
LENGTH = 300
"""Characters of an answer, on average."""


def models() -> list[dict[str, object]]:
    """Return labels of 29 models: five students, untrained and trained with three seeds each."""
    found: list[dict[str, object]] = []
    for student in STUDENTS:
        found.append({"student": student, "method": "base", "teacher": "none"})
        teachers = ("both", "72b") if student in STUDENTS[:3] else ("both",)
        for teacher in teachers:
            trained = {"student": student, "method": "ril", "teacher": teacher}
            trained |= {"family": f"{student} {teacher}", "start_fingerprint": f"{student} base"}
            found += [{**trained, "seed": seed} for seed in range(3)]
    return found


def fill(path: Path, share: float, evaluations: int | None = None) -> int:
    """Record that share of the questions for each model; return the number of answers."""
    count = 0
    with Ledger(path) as ledger:
        for number, labels in enumerate(models()[:evaluations]):
            made = evaluation(number, labels, share)
            ledger.record(made)
            count += len(made.samples)
    return count


def evaluation(number: int, labels: dict[str, object], share: float) -> Evaluation:
    """One model on the suite: better where it was trained, and unlike in each seed."""
    rng = np.random.default_rng(number)
    skill = 0.4 + 0.3 * (labels["method"] == "ril") + 0.05 * rng.standard_normal()
    fingerprint = f"{labels['student']} {labels['method']}"
    if "seed" in labels:
        fingerprint += f" {labels['teacher']} {labels['seed']}"
    scores, samples = [], []
    for benchmark, questions in QUESTIONS.items():
        size = max(1, round(questions * share))
        found = list(answers(benchmark, size, skill, rng))
        samples += found
        scores.append(score(benchmark, found))
    return Evaluation(
        path=f"/models/{fingerprint}",
        fingerprint=fingerprint,
        suite="paper",
        created=f"2026-01-{number + 1:02}T00:00:00+00:00",
        settings={"temperature": 0.0, "max_tokens": 2048},
        scores=tuple(scores),
        samples=tuple(samples),
        **labels,  # type: ignore[arg-type]
    )


def answers(benchmark: str, size: int, skill: float, rng: np.random.Generator) -> Iterator[Sample]:
    """Answers to questions whose difficulty is the same for every model."""
    difficulty = np.random.default_rng(QUESTIONS[benchmark]).standard_normal(size)
    verdicts = skill + 0.5 * rng.standard_normal(size) > 0.5 * difficulty
    grades = np.round(rng.random(size) * 0.5 + 0.5 * verdicts, 1)
    strata = STRATA.get(benchmark, ("",))
    lengths = np.maximum(1, rng.normal(LENGTH, 80, size)).astype(int)
    begins = rng.integers(len(TEXT) // 2, size=size)
    for i in range(size):
        yield Sample(
            benchmark=benchmark,
            question_id=str(i),
            prompt_hash=f"{i:016x}",
            response=TEXT[begins[i] : begins[i] + lengths[i]],
            score=float(grades[i] if benchmark in GRADED else verdicts[i]),
            gold="B",
            judge="judge" if benchmark in GRADED else None,
            tokens=int(lengths[i]) // 4,
            seconds=0.5,
            finish_reason="stop",
            extracted="B",
            stem=f"question {i} of {benchmark}",
            stratum=strata[i % len(strata)],
        )


def score(benchmark: str, samples: list[Sample]) -> Score:
    """The mean of the strata's means, as the kit would give it."""
    strata: dict[str, list[float]] = {}
    for sample in samples:
        strata.setdefault(sample.stratum, []).append(sample.score or 0.0)
    return Score(
        benchmark=benchmark,
        value=100 * statistics.fmean(map(statistics.fmean, strata.values())),
        kit="vlmevalkit",
        kit_version="1",
        dataset=benchmark,
        metric="Overall",
        judge="judge" if benchmark in GRADED else None,
        questions=len(samples),
        answered=len(samples),
        missing=0,
        data_sha256="0" * 64,
        data_state="published",
        asked="0" * 12,
    )


def seconds(name: str, path: Path) -> tuple[float, float]:
    """Wall and processor time of a command's whole process."""
    baseline = ["--baseline", str(path.with_suffix(".json"))] if name == "check" else []
    command = [*ENTRY, *COMMANDS[name], *baseline, "--db", str(path)]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr.decode()}")
    before_cpu, after_cpu = (t.children_user + t.children_system for t in (before, after))
    return wall, after_cpu - before_cpu


def calibrate(path: Path) -> None:
    """Write the baseline that `check` holds the same ledger against."""
    options = ["--baseline", str(path.with_suffix(".json")), "--db", str(path)]
    command = [*ENTRY, "check", "--update", "--reason", "made up", *options]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def measure(name: str, path: Path, least: Path) -> dict[str, float]:
    """Medians of the command with the ledger and with the least one, in turn.

    Processor time beside wall time: a busy machine changes it less.
    """
    seconds(name, path), seconds(name, least)  # Warm the caches.
    turns = [(seconds(name, path), seconds(name, least)) for _ in range(REPEATS)]
    large, small = (np.median(side, axis=0) for side in zip(*turns, strict=True))
    (wall, cpu), (start_up, _) = large - small, small
    figures = {"seconds": wall, "cpu_seconds": cpu, "whole": large[0], "start_up": start_up}
    return {name: round(float(value), 3) for name, value in figures.items()}


def growth(taken: dict[str, dict[str, float]]) -> list[float | None]:
    """How many times longer each size takes than the one before; None where that cannot be told."""
    found = [figures["seconds"] for figures in taken.values()]
    return [round(b / a, 1) if min(a, b) >= LEAST else None for a, b in pairwise(found)]


def main() -> None:
    """Make the ledgers, time every command with each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, default=ROWS, help="answers of each ledger")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    taken: dict[str, dict[str, dict[str, float]]] = {name: {} for name in COMMANDS}
    made: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        least = Path(folder) / "least.db"
        fill(least, 0.0, evaluations=4)
        calibrate(least)
        for rows in sorted(options.rows):
            path = Path(folder) / f"{rows}.db"
            start = time.perf_counter()
            count = fill(path, rows / len(models()) / sum(QUESTIONS.values()))
            writing = round(time.perf_counter() - start, 1)
            calibrate(path)
            megabytes = round(path.stat().st_size / 1e6, 1)
            made[str(rows)] = {"answers": count, "megabytes": megabytes, "writing": writing}
            for name in taken:
                taken[name][str(rows)] = measure(name, path, least)
                sys.stderr.write(f"{rows} {name}: {taken[name][str(rows)]}\n")
            path.unlink()
    result = {
        "command": "make bench",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "repeats": REPEATS,
        "ledgers": made,
        "commands": {
            name: {"limit": LIMITS[name], "rows": times, "growth": growth(times)}
            for name, times in taken.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
