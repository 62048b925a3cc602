"""What the regression gate finds and how often it errs, on the runs and outcomes in this tree.

``make bench-gate`` writes ``results/bench/gate.json``. The untrained student: right answers of its
stored outcomes become wrong, and the product's own comparison says what it finds. Trained students:
each seed of each family in ``results/nano/runs`` is compared with the bounds of the others, as it
is (a false alarm if it fails) and with a mean lower by ten points (found if it fails).
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rilbench.check.baseline import Entry, read_baseline
from rilbench.check.compare import check_entry
from rilbench.check.metrics import MEAN, Measured, Metric, Outcomes
from rilbench.check.thresholds import (
    DROP,
    FLIP_RATE,
    MIN_SEEDS,
    MOST_FREEDOM,
    Bound,
    least_deviation,
    levels,
)
from rilbench.lab.run_result import read_result
from rilbench.ledger import Evaluation, Score
from rilbench.stats import prediction_bound

ROOT = Path(__file__).parents[2]
OUT = ROOT / "results" / "bench" / "gate.json"
REPETITIONS = 1000
QUESTIONS = 50
"""Of a benchmark in the smaller of the two suites that the families were scored on."""

Family = dict[int, dict[str, float]]
"""Scores by benchmark of each seed."""


# ---- the untrained student


def measured(entry: Entry, outcomes: Mapping[str, Outcomes]) -> Measured:
    """An evaluation with these outcomes, made as the entry's was."""
    scores = []
    for metric in entry.metrics:
        if metric.name not in outcomes:
            continue
        values = outcomes[metric.name].values()
        lost = sum(metric.outcomes.values()) - sum(values)
        made = {name: metric.provenance[name] for name in ("kit", "kit_version", "dataset")}
        made |= {name: metric.provenance[name] for name in ("metric", "judge", "data_sha256")}
        value = max(0.0, metric.usual - 100 * lost / metric.questions)
        counts = {"questions": metric.questions, "answered": metric.questions, "missing": 0}
        score = Score(benchmark=metric.name, value=value, asked=metric.provenance["asked"] or "",
                      **made, **counts)  # fmt: skip
        scores.append(score)
    evaluation = Evaluation(
        path="",
        fingerprint="",
        student=entry.student,
        method=entry.method,
        teacher=entry.teacher,
        suite=entry.suite,
        created="2026-01-01T00:00:00+00:00",
        scores=tuple(scores),
    )
    return Measured(evaluation, None, outcomes)


def worse(metric: Metric, points: float, rng: random.Random) -> Outcomes:
    """The outcomes with a score lower by so many points, and with the flips of a clean run."""
    outcomes = {q: 0.0 if rng.random() < FLIP_RATE else s for q, s in metric.outcomes.items()}
    right = [question for question, score in metric.outcomes.items() if score > 0]
    rng.shuffle(right)
    left = points / 100 * metric.questions
    for question in right:
        if left <= 0:
            break
        outcomes[question], left = 0.0, left - metric.outcomes[question]
    return outcomes


def untrained(entry: Entry, bounds: Mapping[str, Bound]) -> dict[str, object]:
    """Shares of repetitions that fail: as they are, and after drops."""
    rng = random.Random(0)
    benchmarks = [metric for metric in entry.metrics if metric.outcomes]

    def failed(drops: Mapping[str, float]) -> set[str]:
        outcomes = {m.name: worse(m, drops.get(m.name, 0.0), rng) for m in benchmarks}
        verdicts = check_entry(entry, bounds, measured(entry, outcomes))
        return {verdict.metric for verdict in verdicts if verdict.state == "failed"}

    def share(drops: Mapping[str, float], metric: str = "") -> float:
        found = [failed(drops) for _ in range(REPETITIONS)]
        return sum(metric in names if metric else bool(names) for names in found) / REPETITIONS

    return {
        "questions": sum(metric.questions for metric in benchmarks),
        "flip_rate": FLIP_RATE,
        "false_alarms": share({}),
        "drop of 10 points in one benchmark": {m.name: share({m.name: 10.0}) for m in benchmarks},
        "drop of 5 points in all, found by the mean": share(
            {m.name: 5.0 for m in benchmarks}, MEAN
        ),
    }


# ---- trained students


def families() -> dict[str, Family]:
    """All seeds of each experiment's runs of one name in one regime, with five seeds or more."""
    found: dict[str, Family] = {}
    for path in sorted((ROOT / "results" / "nano" / "runs").glob("*/*/*.json")):
        result = read_result(path)
        if result.scores and result.seed is not None:
            name = f"{result.experiment}/{result.regime}/{result.name}"
            found.setdefault(name, {})[result.seed] = dict(result.scores)
    return {name: family for name, family in found.items() if len(family) >= MIN_SEEDS}


def left_out(family: Family) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Each seed's scores and their mean, with the bounds of the other seeds, four or more."""
    for seed, scores in family.items():
        others = [{**s, MEAN: statistics.fmean(s.values())} for k, s in family.items() if k != seed]
        metrics = [
            Metric(name, tuple(other[name] for other in others), 0 if name == MEAN else QUESTIONS)
            for name in others[0]
        ]
        (alphas,) = levels([metrics])
        limits = {
            metric.name: prediction_bound(
                metric.values, alphas[metric.name], least_deviation(metric), MOST_FREEDOM
            )
            for metric in metrics
        }
        yield {**scores, MEAN: statistics.fmean(scores.values())}, limits


def trained() -> dict[str, object]:
    """False alarms and power, each seed against the others of its family."""
    rows: dict[str, object] = {}
    seeds = alarms = 0
    enough: list[bool] = []
    for name, family in families().items():
        here = {"seeds": len(family), "false_alarms": 0, "found": 0}
        for values, limits in left_out(family):
            here["false_alarms"] += any(values[each] < limits[each] for each in values)
            here["found"] += (found := values[MEAN] - DROP < limits[MEAN])
            enough += [found] * (len(family) > MIN_SEEDS)
        rows[name] = here
        seeds += len(family)
        alarms += here["false_alarms"]
    return {
        "families": rows,
        "seeds": seeds,
        "false_alarms": round(alarms / seeds, 4),
        f"mean lower by 10 points, with {MIN_SEEDS} seeds or more to compare": {
            "seeds": len(enough),
            "found": sum(enough),
        },
    }


def main() -> None:
    """Measure both kinds of models and write the result."""
    path = ROOT / "results" / "baseline.json"
    baseline = read_baseline(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    bounds = baseline.bounds()
    (entry,) = [entry for entry in baseline.entries if entry.single]
    result = {
        "command": "make bench-gate",
        "repetitions": REPETITIONS,
        "untrained": untrained(entry, bounds[entry.label]),
        "trained, each seed against the others of its family": trained(),
        "trained, simulated": {
            values["label"]: {"power": values["power"], "power_wide": values["power_wide"]}
            for values in document["entries"]
            if "power_wide" in values
        },
        "false_alarm, simulated": document["false_alarm"],
    }
    OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{OUT.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
