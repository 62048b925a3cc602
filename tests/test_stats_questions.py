"""Of questions: against scipy and formulas written out, by simulation, and for any tally."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulated import REPETITIONS, SETTINGS, coverage, draw, rejections

from rilbench.stats import (
    bootstrap,
    bootstrap_average,
    mcnemar_p_value,
    paired_p_value,
    permutation_p_value,
    tally_mean,
)


def count(values):
    """A stratum's tally of an array of outcomes."""
    found, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def graded(n, seed):
    """Two judged models' answers, in tenths."""
    rng = np.random.default_rng(seed)
    skill = rng.beta(2, 1.5, n)
    first, second = (np.round(np.clip(skill + rng.normal(0, 0.2, n), 0, 1), 1) for _ in range(2))
    return first, second


def right_or_wrong(n, seed):
    """Two models' answers to questions that are hard for both or for neither."""
    rng = np.random.default_rng(seed)
    skill = rng.beta(2, 1, n)
    return tuple((rng.random(n) < skill).astype(np.float64) for _ in range(2))


# Standard error of a 2.5 % quantile of B normal samples, in deviations:
# sqrt(.025 * .975 / B) / .0584. Both numbers come from samples, and five of their common errors is
# as far as chance takes them.
OURS, SCIPYS = 100_000, 30_000
CHANCE = 5 * math.sqrt(0.025 * 0.975 * (1 / OURS + 1 / SCIPYS)) / 0.0584


def agree(strata, statistic):
    """Assert that the interval is that of scipy's bootstrap of the questions one by one."""
    ours = bootstrap({str(i): count(s) for i, s in enumerate(strata)}, resamples=OURS)
    theirs = scipy.stats.bootstrap(
        strata,
        statistic,
        method="percentile",
        n_resamples=SCIPYS,
        batch=2000,
        rng=np.random.default_rng(1),
    )
    limits = theirs.confidence_interval
    # A quantile on the edge between two means may fall to either.
    gap = min(np.diff(np.unique(each)).min() / len(each) for each in strata) / len(strata)
    error = CHANCE * theirs.standard_error + gap + 1e-9
    assert (ours.low, ours.high) == pytest.approx((limits.low, limits.high), abs=error)
    assert ours.mean == pytest.approx(statistic(*strata))


def mean_of_means(*strata, axis=-1):
    return sum(np.mean(each, axis=axis) for each in strata) / len(strata)


@pytest.mark.parametrize("answers", [graded, right_or_wrong])
def test_the_interval_against_scipys_bootstrap(answers):
    first, second = answers(200, seed=0)
    agree((first,), mean_of_means)
    agree((first - second,), mean_of_means)


def test_the_interval_of_strata_against_scipys_bootstrap():
    (first, _), (second, _) = right_or_wrong(150, seed=1), right_or_wrong(60, seed=2)
    agree((first, second), mean_of_means)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_test_against_the_binomial_formula(gained, lost):
    """Twice the smaller tail of n fair coins, at most 1, in whole numbers."""
    n, least = gained + lost, min(gained, lost)
    tail = Fraction(2 * sum(math.comb(n, k) for k in range(least + 1)), 2**n)
    expected = float(min(tail, Fraction(1)))
    assert mcnemar_p_value(gained, lost) == pytest.approx(expected, rel=1e-9)
    assume(n)
    differences = {v: c for v, c in ((1.0, gained), (-1.0, lost), (0.0, 7)) if c}
    assert paired_p_value({"": differences}) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "seed"), [(12, 0), (12, 3), (60, 1), (218, 2)])
def test_the_sign_flips_against_scipys_permutations(n, seed):
    """With twelve questions scipy tries all 4096 swaps; else as many by chance as we do."""
    first, second = graded(n, seed)
    theirs = scipy.stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        batch=2000,
        rng=np.random.default_rng(5),
    ).pvalue
    ours = paired_p_value({"": count(np.round(first - second, 1))})
    # scipy doubles the smaller tail, so its error is twice that of a share of samples.
    assert ours == pytest.approx(theirs, abs=5 * math.sqrt(3 * ours * (1 - ours) / 10_000) + 2e-4)


def test_the_sign_flips_of_strata_against_scipys_permutations():
    strata = [right_or_wrong(90, seed=3), right_or_wrong(30, seed=6)]
    weights = np.concatenate([np.full(len(a), 1 / len(a) / len(strata)) for a, _ in strata])
    first, second = (np.concatenate(sides) for sides in zip(*strata, strict=True))
    theirs = scipy.stats.permutation_test(
        (first * weights, second * weights),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        batch=2000,
        rng=np.random.default_rng(5),
    ).pvalue
    ours = paired_p_value({str(i): count(a - b) for i, (a, b) in enumerate(strata)})
    assert ours == pytest.approx(theirs, abs=5 * math.sqrt(3 * ours * (1 - ours) / 10_000) + 2e-4)


def check_coverage(n, accuracy, seed):
    """95 % intervals hold the truth 93 to 97 times in a hundred; the test errs 5 times at most."""
    samples = draw(n, (accuracy, accuracy), REPETITIONS, seed)
    plain, paired = coverage(samples, (accuracy, accuracy))
    assert 0.93 < plain < 0.97, f"seed {seed}"
    assert 0.93 < paired < 0.97, f"seed {seed}"
    noise = 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)
    assert rejections(samples) <= 0.05 + noise, f"seed {seed}"


def test_coverage_and_false_alarms_of_a_hundred_questions():
    check_coverage(100, 0.9, seed=11)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "accuracy"), SETTINGS)
def test_coverage_and_false_alarms(n, accuracy):
    check_coverage(n, accuracy, seed=12)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "accuracy"), SETTINGS)
def test_coverage_of_a_difference_that_is_there(n, accuracy):
    accuracies = (accuracy, accuracy - 0.05)
    _, paired = coverage(draw(n, accuracies, REPETITIONS, seed=13), accuracies)
    assert 0.93 < paired < 0.97


def test_the_power_grows_with_the_questions_and_with_the_difference():
    def power(n, second):
        return rejections(draw(n, (0.7, second), 400, seed=14))

    by_size = [power(n, 0.62) for n in (50, 150, 450)]
    by_difference = [power(150, second) for second in (0.7, 0.64, 0.54)]
    for found in (by_size, by_difference):
        assert all(less + 0.05 < more for less, more in pairwise(found)), found
    assert by_size[-1] > 0.9
    assert by_difference[0] < 0.06


@pytest.mark.slow
def test_the_sign_flips_err_as_often_as_they_say():
    """Graded answers of two models that are alike: each false alarm is a chance of one in 20."""
    wrong = []
    for seed in range(1000):
        first, second = graded(100, seed)
        wrong.append(permutation_p_value({"": count(np.round(first - second, 1))}) <= 0.05)
    assert 0.025 < np.mean(wrong) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


FEW = settings(max_examples=25)  # Each takes thousands of resamples, several times.
STRATUM = st.dictionaries(
    st.sampled_from([-1.0, -0.7, -0.1, 0.0, 0.1, 0.3, 0.5, 1.0]),
    st.integers(1, 40),
    min_size=1,
)
TALLY = st.dictionaries(st.sampled_from(["", "a", "b", "c"]), STRATUM, min_size=1)


def shuffled(tally, random):
    """The same counts, met in another order."""

    def mix(entries):
        entries = list(entries.items())
        random.shuffle(entries)
        return dict(entries)

    return mix({name: mix(counts) for name, counts in tally.items()})


@FEW
@given(TALLY, st.randoms(use_true_random=False))
def test_the_order_of_the_questions_changes_nothing(tally, random):
    other = shuffled(tally, random)
    assert bootstrap(other) == bootstrap(tally)
    assert bootstrap_average([other, other]) == bootstrap_average([tally, tally])
    assert paired_p_value(other) == paired_p_value(tally)


@FEW
@given(TALLY)
def test_an_interval_lies_about_its_mean_among_the_values(tally):
    found = bootstrap(tally)
    lowest, highest = (
        np.mean([extreme(counts) for counts in tally.values()]) for extreme in (min, max)
    )
    ends = [lowest - 1e-9, found.low - 1e-9, found.mean, found.high + 1e-9, highest + 1e-9]
    assert ends == sorted(ends)
    wider = bootstrap(tally, level=0.99)
    assert wider.low <= found.low <= found.high <= wider.high


@FEW
@given(
    st.dictionaries(
        st.sampled_from(["", "a", "b"]),
        st.tuples(st.sampled_from([-1.0, 0.0, 0.3, 1.0]), st.integers(1, 5000)),
        min_size=1,
    )
)
def test_where_all_answer_alike_nothing_is_uncertain(strata):
    tally = {name: {value: n} for name, (value, n) in strata.items()}
    found = bootstrap(tally)
    assert found.low == found.high == pytest.approx(found.mean)
    assert bootstrap_average([tally, tally]).low == pytest.approx(found.mean)


@FEW
@given(STRATUM, st.integers(2, 4))
def test_strata_of_equal_size_weigh_as_their_questions_do(counts, copies):
    strata = {str(i): counts for i in range(copies)}
    pooled = {"": {value: n * copies for value, n in counts.items()}}
    assert tally_mean(strata) == pytest.approx(tally_mean(pooled))
    apart, together = bootstrap(strata), bootstrap(pooled)
    n = sum(counts.values()) * copies
    step = 2 * (max(counts) - min(counts)) / n  # What may lie between two resamples' means.
    allowed = 0.15 * (together.high - together.low) + step + 1e-9
    assert apart.low == pytest.approx(together.low, abs=allowed)
    assert apart.high == pytest.approx(together.high, abs=allowed)


@FEW
@given(STRATUM, STRATUM)
def test_an_average_of_two_scores_is_a_score_of_two_strata(first, second):
    average = bootstrap_average([{"": first}, {"": second}])
    score = bootstrap({"a": first, "b": second})
    assert (average.mean, average.low, average.high) == pytest.approx(
        (score.mean, score.low, score.high), abs=1e-12
    )


@FEW
@given(TALLY)
def test_a_p_value_is_a_share_and_takes_no_side(tally):
    found = paired_p_value(tally)
    assert 0 < found <= 1
    mirrored = {s: {-value: n for value, n in counts.items()} for s, counts in tally.items()}
    assert paired_p_value(mirrored) == pytest.approx(found, rel=1e-9)
    unchanged = {stratum: {0.0: sum(counts.values())} for stratum, counts in tally.items()}
    assert paired_p_value(unchanged) == 1.0


@pytest.mark.parametrize("tally", [{}, {"": {}}, {"": {1.0: 3}, "a": {}}, {"": {1.0: 0}}])
def test_there_must_be_questions(tally):
    for function in (tally_mean, bootstrap, permutation_p_value):
        with pytest.raises(ValueError, match="questions in every stratum"):
            function(tally)
    with pytest.raises(ValueError, match="at least one score"):
        bootstrap_average([])
