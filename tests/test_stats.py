"""Of seeds, families of tests and new runs: formulas written out, textbook values, simulation."""

import math
from itertools import chain, combinations, product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rilbench.stats import (
    equivalence_p_value,
    holm,
    prediction_bound,
    prediction_interval,
    question_interval,
    seed_interval,
    seed_p_value,
)


def t_density(x, freedom):
    c = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    return c * (1 + x * x / freedom) ** (-(freedom + 1) / 2)


def t_tail(t, freedom, steps=200_000):
    """P(T > t) by Simpson's rule on [0, t]."""
    h = t / steps
    inner = sum((4 if i % 2 else 2) * t_density(i * h, freedom) for i in range(1, steps))
    return 0.5 - h / 3 * (t_density(0, freedom) + inner + t_density(t, freedom))


def test_the_interval_of_a_worked_example():
    values = [14.85, 16.03, 18.25]
    found = seed_interval(values)
    # Student's table: 4.303 for two degrees of freedom.
    half = 4.30265 * np.std(values, ddof=1) / math.sqrt(3)
    assert found.mean == pytest.approx(16.3767, abs=1e-4)
    assert (found.low, found.high) == pytest.approx(
        (found.mean - half, found.mean + half), rel=1e-5
    )


def test_the_p_value_against_an_integral():
    values = [0.4, 1.1, -0.3, 0.9, 0.7]
    t = np.mean(values) / (np.std(values, ddof=1) / math.sqrt(5))
    assert seed_p_value(values) == pytest.approx(2 * t_tail(float(t), 4), rel=1e-6)
    assert seed_p_value(values, null=1.0) == pytest.approx(seed_p_value([1 - v for v in values]))
    assert seed_p_value([-v for v in values]) == pytest.approx(seed_p_value(values))


def test_interval_and_test_agree():
    for values in ([1.0, 2.0, 3.5], [-0.2, 0.3, 0.1, 0.4], [5.0, 5.1, 4.9]):
        found = seed_interval(values)
        assert (found.low > 0 or found.high < 0) == (seed_p_value(values) < 0.05)


def test_few_seeds_say_little():
    assert seed_interval([3.0]).low == -math.inf
    assert seed_p_value([3.0]) == 1.0
    assert seed_p_value([2.0, 2.0]) == 0.0
    assert seed_p_value([0.0, 0.0]) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        seed_interval([])


@pytest.mark.parametrize("seeds", [3, 5])
def test_seed_intervals_cover_as_often_as_they_say(seeds):
    rng = np.random.default_rng(0)
    samples = rng.normal(2.0, 1.5, (4000, seeds))
    found = [seed_interval(row) for row in samples]
    covered = np.mean([each.low <= 2.0 <= each.high for each in found])
    assert 0.94 < covered < 0.96


def test_the_bootstrap_against_all_resamples():
    """Three questions have 27 resamples; two benchmarks 27 * 27 means."""
    first, second = np.array([0.0, 100.0, 0.0]), np.array([-100.0, 0.0, 100.0])
    means = [
        (first[list(i)].mean() + second[list(j)].mean()) / 2
        for i in product(range(3), repeat=3)
        for j in product(range(3), repeat=3)
    ]
    found = question_interval({"a": first, "b": second}, level=0.8, resamples=40_000)
    exact = np.quantile(means, [0.1, 0.9])
    assert found.mean == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx(tuple(exact), abs=1e-6)


def test_a_benchmark_weighs_one_however_many_questions_it_has():
    found = question_interval({"a": np.full(10, 4.0), "b": np.zeros(1000)})
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_bootstrap_repeats():
    data = {"a": np.random.default_rng(1).normal(size=50)}
    assert question_interval(data) == question_interval(data)
    assert question_interval(data) != question_interval(data, seed=1)


def test_the_bootstrap_needs_questions():
    for data in ({}, {"a": np.array([])}):
        with pytest.raises(ValueError, match="needs questions"):
            question_interval(data)


def test_question_intervals_cover_as_often_as_they_say():
    """Paired outcomes of right and wrong: +100, 0 or -100, unlike between benchmarks."""
    rng = np.random.default_rng(3)
    chances = [(0.3, 0.6, 0.1), (0.1, 0.85, 0.05), (0.2, 0.6, 0.2), (0.5, 0.4, 0.1)]
    truth = np.mean([100 * (up - down) for up, _, down in chances])
    covered = []
    for _ in range(600):
        data = {str(i): rng.choice([100.0, 0.0, -100.0], 100, p=p) for i, p in enumerate(chances)}
        found = question_interval(data, resamples=500)
        covered.append(found.low <= truth <= found.high)
    assert 0.92 < np.mean(covered) < 0.975


def test_holm_of_a_worked_example():
    # Holm (1979): sorted p times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values):
    """The closure principle: of all sets of hypotheses with this one, the least significant."""
    sets = list(
        chain.from_iterable(
            combinations(range(len(p_values)), size) for size in range(1, len(p_values) + 1)
        )
    )
    expected = [
        max(min(1.0, len(each) * min(p_values[j] for j in each)) for each in sets if i in each)
        for i in range(len(p_values))
    ]
    assert holm(p_values) == pytest.approx(expected, abs=1e-12)


def test_holm_keeps_the_family_wise_error():
    rng = np.random.default_rng(5)
    samples = rng.normal(size=(2000, 6, 4))
    wrong = [min(holm([seed_p_value(v) for v in family])) < 0.05 for family in samples]
    assert 0.035 < np.mean(wrong) < 0.065


def test_a_new_draw_falls_below_the_bound_as_often_as_asked():
    rng = np.random.default_rng(6)
    samples = rng.normal(70.0, 2.0, (6000, 7))
    below = [row[6] < prediction_bound(row[:6], 0.05) for row in samples]
    assert 0.042 < np.mean(below) < 0.058
    with pytest.raises(ValueError, match="two values"):
        prediction_bound([1.0], 0.05)


@pytest.mark.parametrize("values", [[70.0, 71.5, 69.2], [1.0, 1.0, 4.0, 9.0, 2.5]])
def test_the_prediction_interval_against_scipys(values):
    error = np.std(values, ddof=1) * math.sqrt(1 + 1 / len(values))
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
    found = prediction_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high))


@pytest.mark.parametrize("runs", [3, 5])
def test_one_more_run_falls_where_it_is_predicted(runs):
    rng = np.random.default_rng(7)
    samples = rng.normal(70.0, 2.0, (4000, runs + 1))
    found = [(prediction_interval(row[:-1]), row[-1]) for row in samples]
    inside = np.mean([each.low <= new <= each.high for each, new in found])
    assert 0.94 < inside < 0.96


def test_two_one_sided_tests_of_no_difference():
    rng = np.random.default_rng(5)
    for mean, spread, n in [(0.0, 0.5, 8), (0.8, 0.3, 5), (1.5, 0.4, 6), (-2.0, 3.0, 4)]:
        values = mean + spread * rng.standard_normal(n)
        above = scipy.stats.ttest_1samp(values, -1.0, alternative="greater").pvalue
        below = scipy.stats.ttest_1samp(values, 1.0, alternative="less").pvalue
        assert equivalence_p_value(list(values), 1.0) == pytest.approx(max(above, below))
    assert equivalence_p_value([0.2], 1.0) == 1.0
    assert equivalence_p_value([0.2, 0.2, 0.2], 1.0) < 1e-9
    assert equivalence_p_value([1.2, 1.2, 1.2], 1.0) > 0.999
