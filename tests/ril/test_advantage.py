import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rilbench.ril.advantage import (
    dr_grpo_advantages,
    grpo_advantages,
    judged_advantages,
)

ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 2.0]) | st.floats(-5, 5), st.integers(-3, 3)),
    min_size=1,
    max_size=40,
)


def naive(rows, *, by_std, eps=1e-6):
    out = []
    for reward, question in rows:
        peers = [r for r, q in rows if q == question]
        mean = math.fsum(peers) / len(peers)
        std = statistics.stdev(peers) if len(peers) > 1 else 0.0
        out.append((reward - mean) / (std + eps) if by_std else reward - mean)
    return torch.tensor(out, dtype=torch.float64)


def tensors(rows, dtype=torch.float64):
    rewards, group = zip(*rows, strict=True)
    return torch.tensor(rewards, dtype=dtype), torch.tensor(group, dtype=torch.int64) * 10**12


@given(ROWS)
def test_dr_grpo_is_the_reward_minus_the_groups_mean(rows):
    got = dr_grpo_advantages(*tensors(rows))
    torch.testing.assert_close(got, naive(rows, by_std=False), rtol=0, atol=1e-12)


@given(ROWS)
def test_grpo_also_divides_by_the_unbiased_standard_deviation(rows):
    got = grpo_advantages(*tensors(rows))
    # Rounding of 1e-15 over eps of 1e-6, where rewards are equal but for rounding.
    torch.testing.assert_close(got, naive(rows, by_std=True), rtol=1e-6, atol=1e-8)


@given(ROWS)
@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_each_group_sums_to_zero(function, rows):
    rewards, group = tensors(rows, torch.float32)
    got = function(rewards, group)
    assert got.dtype == torch.float32
    for question in group.unique():
        assert abs(got[group == question].sum().item()) < 1e-4


@given(ROWS, st.randoms(use_true_random=False))
@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_the_order_of_rows_does_not_matter(function, rows, random):
    rewards, group = tensors(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    shuffled = function(rewards[order], group[order])
    torch.testing.assert_close(shuffled, function(rewards, group)[order], rtol=1e-9, atol=1e-8)


@given(st.floats(-5, 5, width=32), st.integers(1, 40))
@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_equal_rewards_earn_exactly_nothing(function, reward, count):
    rewards = torch.full((count,), reward, dtype=torch.float32)
    assert not function(rewards, torch.zeros(count, dtype=torch.int64)).any()


def test_a_worked_example():
    rewards = torch.tensor([2.0, 5.0, 0.0, 1.0, 1.0])
    group = torch.tensor([7, 3, 7, 7, 7])
    assert dr_grpo_advantages(rewards, group).tolist() == [1.0, 0.0, -1.0, 0.0, 0.0]
    root = 2 / 3  # variance of 2, 0, 1, 1 over n - 1
    expected = torch.tensor([1.0, 0.0, -1.0, 0.0, 0.0]) / (math.sqrt(root) + 1e-6)
    torch.testing.assert_close(grpo_advantages(rewards, group), expected)


@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_no_rows_and_no_gradient(function):
    assert function(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    rewards = torch.tensor([1.0, 0.0], requires_grad=True)
    assert not function(rewards, torch.zeros(2, dtype=torch.int64)).requires_grad
    assert rewards.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_missing_rewards_and_wrong_types_are_refused(function):
    group = torch.zeros(2, dtype=torch.int64)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="missing or infinite"):
            function(torch.tensor([1.0, bad]), group)
    for rewards in (torch.tensor([1, 0]), torch.zeros(3), torch.zeros(2, 1)):
        with pytest.raises(ValueError, match="do not fit"):
            function(rewards, group)


JUDGED = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
        st.sampled_from([0.0, 1.0, math.nan]),
        st.integers(-3, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def naive_judged(rows):
    """The rule in plain Python: (similarity, answer, question, own) row by row."""
    out = []
    for similarity, answer, question, _ in rows:
        peers = [row for row in rows if row[2] == question]
        judged = [row for row in peers if not math.isnan(row[1])]
        sides = {row[3] for row in peers} == {row[3] for row in judged}
        whole = len(judged) == len(peers)
        if math.isnan(answer) or not (whole or (len(judged) >= 2 and sides)):
            out.append(0.0)
            continue
        mean = math.fsum(s + a for s, a, *_ in judged) / len(judged)
        out.append(similarity + answer - mean)
    return torch.tensor(out, dtype=torch.float64)


def judged_tensors(rows, dtype=torch.float64):
    similarity, answer, group, own = zip(*rows, strict=True)
    floats = torch.tensor(similarity, dtype=dtype), torch.tensor(answer, dtype=dtype)
    return *floats, torch.tensor(group) * 10**12, torch.tensor(own)


@given(JUDGED)
def test_rows_without_a_verdict_are_out_and_the_mean_is_over_the_others(rows):
    got = judged_advantages(*judged_tensors(rows))
    torch.testing.assert_close(got, naive_judged(rows), rtol=0, atol=1e-12)
    assert not got[torch.tensor([math.isnan(row[1]) for row in rows])].any()


@given(JUDGED)
@pytest.mark.parametrize("function", [dr_grpo_advantages, grpo_advantages])
def test_with_all_verdicts_it_is_the_estimate_itself(function, rows):
    rows = [(s, 0.0 if math.isnan(a) else a, q, own) for s, a, q, own in rows]
    similarity, answer, group, own = judged_tensors(rows, torch.float32)
    got = judged_advantages(similarity, answer, group, own, function)
    assert torch.equal(got, function(similarity + answer, group))


def test_a_worked_example_of_missing_verdicts():
    nan = math.nan
    rows = [
        # One verdict is missing: the mean of 2, 1 and 0 is 1.
        *((1.0, 1.0, 0, True), (1.0, nan, 0, True), (0.0, 1.0, 0, False), (0.0, 0.0, 0, False)),
        # None of the teachers' is judged, and a single row in all: these say nothing.
        *((1.0, 1.0, 1, True), (0.0, 0.0, 1, True), (0.0, nan, 1, False), (1.0, nan, 1, False)),
        *((1.0, 1.0, 2, True), (0.0, nan, 2, True)),
        # Of a method without teachers' rows, two judged rows are enough.
        *((0.0, 1.0, 3, True), (0.0, nan, 3, True), (0.0, 0.0, 3, True)),
    ]
    got = judged_advantages(*judged_tensors(rows)).tolist()
    assert got == [1.0, 0.0, 0.0, -1.0, *[0.0] * 6, 0.5, 0.0, -0.5]


def test_a_broken_discriminator_is_no_missing_verdict():
    similarity, answer = torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 1.0])
    group, own = torch.zeros(2, dtype=torch.int64), torch.tensor([True, False])
    with pytest.raises(ValueError, match="missing or infinite"):
        judged_advantages(similarity, answer, group, own)
    with pytest.raises(ValueError, match="for every response"):
        judged_advantages(similarity, answer, group[:1], own)
