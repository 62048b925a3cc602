import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rilbench.train.batch import StepBatch
from rilbench.train.metrics import groups_without_signal, row_figures, token_counts


def rows(own, tokens, answer, answer_reward_before_noise=None):
    n = len(own)
    return StepBatch(
        keys=[f"u_{i}_0" for i in range(n)],
        question=["q"] * n,
        source=["student" if o else "72b" for o in own],
        text=["x"] * n,
        group=torch.zeros(n, dtype=torch.int64),
        own=torch.tensor(own),
        answer=torch.tensor(answer),
        answer_reward_before_noise=torch.tensor(
            answer if answer_reward_before_noise is None else answer_reward_before_noise
        ),
        tokens=tokens,
        finished=[t < 9 for t in tokens],
        image_tokens=[4] * n,
    )


def test_figures_are_means_over_each_side():
    step = rows([True, True, False], [3, 9, 5], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    found = row_figures(step, torch.tensor([0.0, 1.0, 1.0]))
    assert found["answer_reward_student"] == 0.5
    assert found["answer_reward_before_noise_student"] == 1.0
    assert found["similarity_reward_student"] == 0.5
    assert (found["tokens_student"], found["tokens_teacher"]) == (6, 5)
    assert (found["unfinished_student"], found["unfinished_teacher"]) == (0.5, 0)


def test_a_missing_verdict_is_counted_and_in_no_mean():
    step = rows([True, True, False], [3, 9, 5], [1.0, math.nan, math.nan])
    found = row_figures(step, torch.tensor([0.0, 1.0, 1.0]))
    assert found["missing_verdicts"] == 2
    assert found["answer_reward_student"] == 1.0
    assert math.isnan(found["answer_reward_teacher"]), "there is none"
    assert row_figures(rows([True], [3], [1.0]), torch.zeros(1))["missing_verdicts"] == 0


def test_a_step_without_teacher_rows_has_no_figures_of_them():
    assert not [k for k in row_figures(rows([True], [3], [1.0]), torch.zeros(1)) if "teacher" in k]


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1), min_size=1, max_size=6))
def test_groups_without_signal_counts_groups_of_equal_rewards(groups):
    rewards = torch.tensor([r for group in groups for r in group])
    index = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    equal = sum(len(set(group)) == 1 for group in groups) / len(groups)
    assert groups_without_signal(rewards, index) == pytest.approx(equal)


def test_tokens_are_counted_for_each_pass_and_only_where_they_are_learned():
    step = rows([True, True, False], [3, 9, 5], [1.0, 0.0, 1.0])
    all_rows = token_counts(step, teacher_rows_in_loss=True, passes=2)
    assert all_rows == {"sampled_tokens": 12, "teacher_tokens": 5, "trained_tokens": 34}
    assert token_counts(step, teacher_rows_in_loss=False, passes=1)["trained_tokens"] == 12
