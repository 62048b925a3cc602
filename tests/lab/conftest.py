"""Rows as finished runs write them, without running anything."""

import hashlib

import numpy as np
import pytest

from rilbench.evaluate.suite import suite_columns
from rilbench.lab.experiment import SUITE
from rilbench.lab.regimes import REGIMES
from rilbench.lab.run_result import Outcomes, RunCost, RunFailure, RunResult

QUESTIONS = 120
BENCHMARKS = suite_columns(SUITE)
EASE = np.random.default_rng(7).uniform(size=(len(BENCHMARKS), QUESTIONS))
"""How hard each question is; the same for all results, so that they are paired."""


def fake_result(job, settings, level=0.6, noise=0.02, **changes):
    """The result of a job whose chance of a right answer is about ``level``."""
    seed = int(hashlib.sha256(job.label.encode()).hexdigest()[:8], 16)
    rng = np.random.default_rng(seed)
    level = level + noise * rng.standard_normal()
    right = (EASE + 0.1 * rng.standard_normal(EASE.shape) < level).astype(float)
    curves = {}
    if job.spec.method not in ("", "sft"):
        rise = np.linspace(0.3, level, job.steps) + 0.02 * rng.standard_normal(job.steps)
        names = [
            "answer_reward_student",
            "similarity_reward_student",
            "kl",
            "answer_reward_teacher",
        ]
        curves = {name: [round(float(v), 4) for v in np.clip(rise, 0, 1)] for name in names}
        curves["warnings"] = [["collapse"] if i == 3 else [] for i in range(job.steps)]
    values = {
        "experiment": job.experiment,
        "regime": job.regime,
        "name": job.spec.name,
        "seed": job.seed,
        "split": job.split,
        "steps": 0 if job.spec.model else job.steps,
        "recipe": job.spec.recipe,
        "method": job.spec.method,
        "model": job.spec.model,
        "settings": job.settings(settings),
        "recipe_fingerprint": "0" * 16,
        "start_fingerprint": "1" * 16,
        "digest": REGIMES[job.regime].digest,
        "engine": job.engine,
        "scores": {
            c: round(100 * float(r.mean()), 4) for c, r in zip(BENCHMARKS, right, strict=True)
        },
        "outcomes": {
            c: Outcomes("abcdef12", tuple(r.tolist()))
            for c, r in zip(BENCHMARKS, right, strict=True)
        },
        "cost": RunCost(50_000, 40_000, 90_000, 3_360, 300_000, {"collect": 60.0, "ril": 120.5}),
        "curves": curves,
    }
    return RunResult(**{**values, **changes})


@pytest.fixture(scope="session")
def make_result():
    return fake_result


@pytest.fixture(scope="session")
def failed_result():
    def make(job, settings, step=7):
        nothing = {"scores": {}, "outcomes": {}, "curves": {}}
        return fake_result(job, settings, failure=RunFailure(step, "the loss is NaN"), **nothing)

    return make
