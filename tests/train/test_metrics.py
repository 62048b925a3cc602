import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from step_batches import step_batch

from rilbench.ril.methods import METHODS
from rilbench.ril.step import score_step
from rilbench.train.metrics import groups_without_signal, reward_metrics, token_metrics

LOGITS = torch.tensor([1.0, -1.0, -1.0])


def measured(batch, logits=LOGITS, extra=None):
    signal = score_step(logits, batch.answer_reward, batch.group, batch.is_student, METHODS["ril"])
    return reward_metrics(batch, signal, extra or {}, METHODS["ril"])


def three(answer_reward, **more):
    return step_batch(
        answer_reward, is_student=[True, True, False], group=[0, 0, 0], tokens=[3, 9, 5], **more
    )


def test_metrics_are_means_over_student_and_teacher():
    metrics = measured(three([1.0, 0.0, 1.0], before_noise=[1.0, 1.0, 1.0]))
    assert metrics["answer_reward_student"] == 0.5
    assert metrics["answer_reward_before_noise_student"] == 1.0
    assert metrics["similarity_reward_student"] == 0.5
    assert (metrics["tokens_student"], metrics["tokens_teacher"]) == (6, 5)
    assert (metrics["unfinished_student"], metrics["unfinished_teacher"]) == (0.5, 0)


def test_a_missing_verdict_is_counted_and_in_no_mean():
    metrics = measured(three([1.0, math.nan, math.nan]))
    assert metrics["missing_verdicts"] == 2
    assert metrics["answer_reward_student"] == 1.0
    assert math.isnan(metrics["answer_reward_teacher"]), "no verdict, no mean"
    assert measured(three([1.0, 0.0, 1.0]))["missing_verdicts"] == 0


def test_a_registered_reward_has_a_mean_for_each_side():
    extra = {"brevity": torch.tensor([0.5, 1.0, 0.25])}
    metrics = measured(three([1.0, 0.0, 1.0]), extra=extra)
    assert (metrics["reward_brevity_student"], metrics["reward_brevity_teacher"]) == (0.75, 0.25)


def test_of_several_teachers_each_has_its_rewards():
    """One passes for a teacher with the wrong answer, the other does not with the right one."""
    batch = step_batch(
        [1.0, 0.0, 1.0], is_student=[True, False, False], group=[0, 0, 0], tokens=[1, 1, 1]
    )
    batch = replace(batch, source=["student", "72b", "78b"])
    metrics = measured(batch, torch.tensor([1.0, -1.0, 1.0]))
    assert (metrics["answer_reward_72b"], metrics["similarity_reward_72b"]) == (0.0, 1.0)
    assert (metrics["answer_reward_78b"], metrics["similarity_reward_78b"]) == (1.0, 0.0)
    one = replace(batch, source=["student", "72b", "72b"])
    assert "similarity_reward_72b" not in measured(one), "similarity_reward_teacher says it"


def test_a_step_without_teacher_responses_has_no_metrics_of_them():
    alone = step_batch([1.0], is_student=[True], group=[0])
    assert not [k for k in measured(alone, torch.zeros(1)) if "teacher" in k]


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1), min_size=1, max_size=6))
def test_groups_without_signal_counts_groups_of_equal_rewards(groups):
    rewards = torch.tensor([r for group in groups for r in group])
    index = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    equal = sum(len(set(group)) == 1 for group in groups) / len(groups)
    assert groups_without_signal(rewards, index) == pytest.approx(equal)


def test_tokens_are_counted_for_each_update_and_only_where_they_are_learned():
    batch = three([1.0, 0.0, 1.0])
    counts = token_metrics(batch, teachers_in_loss=True, mu=2)
    assert counts == {"sampled_tokens": 12, "teacher_tokens": 5, "trained_tokens": 34}
    assert token_metrics(batch, teachers_in_loss=False, mu=1)["trained_tokens"] == 12
