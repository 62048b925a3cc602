"""Evaluations and runs as a ledger keeps them, without a model behind them."""

import dataclasses

import numpy as np

from rilbench.ledger import Evaluation, Run, Score

BENCHMARKS = ("MMB", "MMStar", "ChartQA")
QUESTIONS = 200


def score(benchmark, value, **changes):
    values = {
        "benchmark": benchmark,
        "value": value,
        "kit": "ms-vlmeval",
        "kit_version": "0.0.20",
        "dataset": f"Nano{benchmark}",
        "metric": "Overall",
        "questions": QUESTIONS,
        "answered": QUESTIONS,
        "missing": 0,
        "data_sha256": "d" * 64,
        "asked": "a",
    }
    return Score(**{**values, **changes})


def evaluation(values, seed=None, minute=0, **changes):
    """Of an untrained model, or with a seed of a trained one; ``values`` by benchmark."""
    trained = {} if seed is None else {"method": "ril", "teacher": "both", "seed": seed}
    if trained:
        trained |= {"family": "f" * 16, "run": f"run-{seed}", "recipe_fingerprint": f"r{seed}"}
    found = {
        "path": "/m",
        "fingerprint": f"model-{seed}",
        "student": "nano",
        "method": "base",
        "teacher": "none",
        "suite": "nano",
        "created": f"2026-01-02T03:{minute:02}:00+00:00",
        "scores": tuple(score(name, value) for name, value in values.items()),
        **trained,
    }
    return Evaluation(**{**found, **changes})


def training_run(seed, accuracy=0.7, answer=0.6, step=5.0, memory=1.5, **changes):
    figures = {"step_cpu_seconds": step, "yardstick_seconds": 0.05, "memory_gb": memory}
    found = Run(
        name=f"run-{seed}",
        path=f"/runs/run-{seed}",
        recipe_fingerprint=f"r{seed}",
        recipe_yaml="",
        student="nano",
        method="ril",
        teacher="both",
        status="finished",
        created="2026-01-02T03:00:00+00:00",
        family="f" * 16,
        seed=seed,
        metrics=figures,
        curves={
            "discriminator_accuracy": [accuracy] * 6,
            "answer_reward_student": [0.1] * 4 + [answer] * 2,
        },
    )
    return dataclasses.replace(found, **changes)


def seeds(count=9):
    """Evaluations and runs of a family, with the spread that seeds have."""
    rng = np.random.default_rng(3)
    for seed in range(1, count + 1):
        noise = rng.normal(size=7)
        values = {n: 70 + 2 * d for n, d in zip(BENCHMARKS, noise[:3], strict=True)}
        yield (
            evaluation(values, seed=seed, minute=seed),
            training_run(
                seed,
                *(0.7 + 0.02 * noise[3], 0.6 + 0.02 * noise[4]),
                *(5 + 0.1 * noise[5], 1.5 + 0.01 * noise[6]),
            ),
        )
