"""Bounds: what they promise of false alarms, and what they find."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rilbench.check import thresholds as bounds
from rilbench.check.metrics import MEAN, MEMORY, TIME, TRAINING, Metric
from rilbench.check.thresholds import (
    ALPHA,
    DROP,
    FLIP_RATE,
    LEAST_BENCHMARK_DEVIATION,
    LEAST_MEAN_DEVIATION,
    MIN_SEEDS,
    POWER,
    allowed_worse,
    bound,
    false_alarms,
    levels,
    power,
)

FEW = st.lists(st.floats(5, 95), min_size=MIN_SEEDS, max_size=12).map(tuple)
NAMES = st.sampled_from(["MMB", MEAN, *TRAINING])
CHANCES = st.floats(1e-6, 0.01)


def metric(name, values):
    return Metric(name, tuple(values), questions=0 if name in (MEAN, *TRAINING) else 50)


def family(n=9, deviation=2.0, seed=1, questions=50):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(6, n))
    return [
        Metric("MMB", tuple(70 + 2 * deviation * noise[0]), questions),
        Metric("MMStar", tuple(60 + 2 * deviation * noise[1]), questions),
        Metric(MEAN, tuple(65 + deviation * noise[2])),
        Metric("discriminator_accuracy", tuple(0.7 + 0.02 * noise[3])),
        Metric(TIME, tuple(90 + 2 * noise[4])),
        Metric(MEMORY, tuple(1.5 + 0.02 * noise[5])),
    ]


def single(value=70.0, questions=100, benchmarks=14):
    metrics = [Metric(f"b{number}", (value,), questions) for number in range(benchmarks)]
    return [*metrics, Metric(MEAN, (value,))]


@given(NAMES, FEW, CHANCES)
def test_a_run_equal_to_the_calibration_passes(name, values, alpha):
    found = metric(name, values)
    limit = bound(found, [found], alpha).value
    assert limit >= found.usual if found.lower_is_better else limit <= found.usual


@given(st.floats(0, 100), st.integers(1, 3000), CHANCES)
def test_a_single_evaluation_passes_when_it_is_repeated(value, questions, alpha):
    found = Metric("MMB", (value,), questions)
    limit = bound(found, [found], alpha)
    assert 0.0 <= limit.value <= value
    assert limit.worse >= 0
    assert limit.finds is None or limit.finds > value - limit.value - 1e-3


@given(NAMES, FEW, CHANCES, st.floats(1.1, 10))
def test_a_smaller_chance_gives_a_wider_bound(name, values, alpha, factor):
    found = metric(name, values)
    near, far = (bound(found, [found], chance).value for chance in (alpha, alpha / factor))
    assert far >= near if found.lower_is_better else far <= near


@given(NAMES, FEW, CHANCES, st.floats(1.1, 10))
def test_a_larger_spread_gives_a_wider_bound(name, values, alpha, factor):
    found = metric(name, values)
    middle = found.usual
    wide = dataclasses.replace(found, values=tuple(middle + factor * (v - middle) for v in values))
    near, far = (bound(each, [each], alpha).value for each in (found, wide))
    assert far >= near - 1e-3 if found.lower_is_better else far <= near + 1e-3


@given(FEW, CHANCES)
def test_an_upper_bound_mirrors_a_lower_one(values, alpha):
    assume(statistics.stdev(values) > 1)
    upper = bound(metric(TIME, values), [], alpha).value
    lower = bound(metric("answer_reward_student", [-v for v in values]), [], alpha).value
    assert upper == pytest.approx(-lower, abs=1e-3)


def _student_t_quantile(level, freedom):
    """By numerical integration of Student's density, from 0 to where its area is level - 1/2."""
    grid = np.linspace(0, 60, 600_001)
    constant = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi)
    density = constant / math.gamma(freedom / 2) * (1 + grid**2 / freedom) ** (-(freedom + 1) / 2)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    return grid[np.searchsorted(area, level - 0.5)]


def test_bounds_of_seeds_are_prediction_intervals():
    metrics = family()
    (alphas,) = levels([metrics])
    mean = metrics[2]
    n, values = len(mean.values), np.array(mean.values)
    quantile = _student_t_quantile(1 - alphas[MEAN], n - 1)
    expected = values.mean() - quantile * values.std(ddof=1) * np.sqrt(1 + 1 / n)
    assert bound(mean, metrics, alphas[MEAN]).value == pytest.approx(expected, abs=1e-3)


def _more_than(worse, questions):
    """The chance that more outcomes flip, as a sum of binomial terms."""
    terms = (
        math.comb(questions, k) * FLIP_RATE**k * (1 - FLIP_RATE) ** (questions - k)
        for k in range(worse + 1)
    )
    return 1 - math.fsum(terms)


@pytest.mark.parametrize("alpha", [1e-3, 5e-5])
def test_a_single_evaluations_bound_is_the_flips_that_rounding_may_cause(alpha):
    metrics = single(80.0, 100)
    worse, cost = allowed_worse(metrics[0], metrics, alpha)
    assert _more_than(worse, 100) <= alpha < _more_than(worse - 1, 100)
    assert cost == 1.0
    total, cost = allowed_worse(metrics[-1], metrics, alpha)
    assert _more_than(total, 1400) <= alpha < _more_than(total - 1, 1400)
    assert cost == pytest.approx(100 / 1400)
    limit = bound(metrics[0], metrics, alpha)
    assert (limit.value, limit.finds, limit.worse) == (80.0 - worse, worse + 1, worse)


def test_seeds_that_agree_by_chance_still_give_a_bound_of_some_width():
    for name, slack in (
        ("MMB", LEAST_BENCHMARK_DEVIATION),
        (MEAN, LEAST_MEAN_DEVIATION),
        (TIME, 0.7),
        ("answer_reward_student", 0.005),
    ):
        found = metric(name, [70.0] * 9)
        assert abs(bound(found, [found], 0.001).value - 70.0) > slack


def test_more_seeds_do_not_make_the_tails_thinner():
    def deviations(n):
        found = metric(MEAN, [60.0, 80.0] * (n // 2))
        gap = statistics.fmean(found.values) - bound(found, [found], 0.001).value
        return gap / statistics.stdev(found.values) / math.sqrt(1 + 1 / n)

    few, ten, many = map(deviations, (6, 10, 32))
    assert few > ten == pytest.approx(many, abs=1e-4)
    assert ten == pytest.approx(4.2968, abs=1e-3), "t's quantile with 9 degrees of freedom"


@given(st.lists(st.sampled_from(["family", "single"]), min_size=1, max_size=5))
def test_the_levels_of_all_metrics_add_up_to_alpha(kinds):
    models = [family() if kind == "family" else single() for kind in kinds]
    found = levels(models)
    assert sum(sum(each.values()) for each in found) == pytest.approx(ALPHA)
    for metrics, alphas in zip(models, found, strict=True):
        assert alphas.keys() == {each.name for each in metrics}
        assert max(alphas, key=lambda name: alphas[name]) == MEAN


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_run_fails_at_most_once_in_a_hundred(seed):
    models = [family(seed=seed), single(), family(n=5, seed=seed + 10)]
    assert false_alarms(models) <= 0.01
    # Independent metrics, so that the chances nearly add up where no least deviation is in force.
    wide = family(deviation=9.0, seed=seed)
    of_scores = [metric for metric in wide if metric.name in (MEAN, "MMB", "MMStar")]
    assert false_alarms([of_scores]) == pytest.approx(ALPHA, abs=0.003)


def test_the_simulation_finds_a_gate_that_is_too_tight(monkeypatch):
    monkeypatch.setattr(bounds, "ALPHA", 0.3)
    assert false_alarms([family(deviation=4.0)], 4000) > 0.1
    assert false_alarms([single()], 4000) > 0.05


def test_power_agrees_with_the_simulation():
    metrics = family(n=12, deviation=1.4)
    (alphas,) = levels([metrics])
    assert power(metrics, alphas) > POWER
    assert power(metrics, alphas, wide=True) < power(metrics, alphas)
    wider = family(deviation=8.0)
    (alphas,) = levels([wider])
    assert power(wider, alphas) < 0.5
    finds = bound(wider[2], wider, alphas[MEAN]).finds
    fails = bounds._seeds_fail(wider[2], alphas[MEAN], 20_000, np.random.default_rng(1), drop=finds)
    assert fails.mean() == pytest.approx(POWER, abs=0.01)
    one = single(questions=100)
    assert power(one, levels([one])[0]) > POWER
    assert DROP == 10.0
