import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rilbench.ril.rewards import similarity_reward


@given(st.lists(st.floats(-30, 30, width=32), max_size=20))
def test_similarity_is_the_indicator_of_equation_2(logits):
    # exp overflows nowhere in -30..30, and there float64's sigmoid is exact enough to compare.
    expected = [1.0 if 1 / (1 + math.exp(-z)) < 0.5 or -1e-15 < z < 0 else 0.0 for z in logits]
    got = similarity_reward(torch.tensor(logits, dtype=torch.float32))
    assert got.tolist() == expected
    assert got.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_half_earns_nothing(dtype):
    # The last one is a D below 0.5 that float32's sigmoid would round up to 0.5.
    logits = torch.tensor([0.0, -0.0, -1e-9, 1e-9], dtype=dtype)
    assert similarity_reward(logits).tolist() == [0.0, 0.0, 1.0, 0.0]


def test_extreme_and_broken_logits():
    got = similarity_reward(torch.tensor([-torch.inf, torch.inf, -1e38, 1e38, torch.nan]))
    assert got[:4].tolist() == [1.0, 0.0, 1.0, 0.0]
    assert got[4].isnan()


def test_similarity_has_no_gradient():
    assert not similarity_reward(torch.randn(3, requires_grad=True)).requires_grad
