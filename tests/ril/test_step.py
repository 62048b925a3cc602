"""`score_step` beside a naive reading of Algorithm 2 in Python floats."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rilbench.ril.methods import METHODS
from rilbench.ril.step import score_step

RL = [name for name, method in METHODS.items() if method.is_rl]
RESPONSE = st.tuples(
    st.sampled_from([-2.0, -0.25, 0.25, 2.0]),  # logit
    st.sampled_from([0.0, 1.0]),  # verdict
    st.booleans(),  # is_student
)
GROUPS = st.lists(st.lists(RESPONSE, min_size=2, max_size=6), min_size=1, max_size=4)


def tensors(groups):
    flat = [
        (logit, answer, own, g) for g, group in enumerate(groups) for logit, answer, own in group
    ]
    logits, answer, own, group = zip(*flat, strict=True)
    floats = torch.tensor(logits), torch.tensor(answer)
    return *floats, torch.tensor(group), torch.tensor(own)


def naive(groups, method, teachers_in_loss):
    """Rewards and advantages, one response at a time."""
    out = []
    for group in groups:
        rewards = []
        for logit, answer, own in group:
            seen_as_teacher = 1 / (1 + math.exp(-logit)) < 0.5
            similar = method.uses_discriminator * seen_as_teacher
            if method.pairs_with_teachers:
                similar = -logit
            similar += method.uses_teacher_bonus * (not own)
            reward = similar + method.uses_answer_reward * answer
            rewards.append(float(reward))
        mean = sum(rewards) / len(rewards)
        deviation = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
        for reward, (_, _, own) in zip(rewards, group, strict=True):
            advantage = reward - mean
            if method.normalize_std:
                advantage /= deviation + 1e-6
            out.append((reward, advantage, advantage if own or teachers_in_loss else 0.0))
    return out


@given(groups=GROUPS, teachers_in_loss=st.booleans())
@pytest.mark.parametrize("name", RL)
def test_rewards_and_advantages_are_algorithm_2(name, groups, teachers_in_loss):
    method = METHODS[name]
    logits, answer, group, own = tensors(groups)
    signal = score_step(logits, answer, group, own, method, teachers_in_loss=teachers_in_loss)
    expected = torch.tensor(naive(groups, method, teachers_in_loss), dtype=torch.float64)
    got = torch.stack([signal.reward, signal.advantage, signal.learned_advantage], 1).double()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_the_table_of_methods_is_the_papers():
    """Table 2's columns: what each method learns from. One changed entry is another method.

    ``teacher-bonus`` is our control, ``gad`` and ``opd`` are neighbours; they are not the paper's.
    """
    plain = {
        "uses_teachers": False,
        "uses_discriminator": False,
        "uses_answer_reward": False,
        "uses_teacher_bonus": False,
        "pairs_with_teachers": False,
        "uses_teacher_log_probs": False,
        "normalize_std": False,
        "aggregation": "token-sum",
        "is_rl": True,
    }
    teachers, answer = {"uses_teachers": True}, {"uses_answer_reward": True}
    discriminator = {"uses_discriminator": True}
    assert {name: dataclasses.asdict(method) for name, method in METHODS.items()} == {
        "ril": plain | teachers | discriminator | answer,
        "imitation": plain | teachers | discriminator,
        "teacher-bonus": plain | teachers | answer | {"uses_teacher_bonus": True},
        "teacher-rows": plain | teachers | answer,
        "dr-grpo": plain | answer,
        "grpo": plain | answer | {"normalize_std": True, "aggregation": "sequence-mean"},
        "gad": plain | discriminator | {"pairs_with_teachers": True, "normalize_std": True},
        "opd": plain | {"uses_teacher_log_probs": True},
        "sft": plain | {"is_rl": False},
    }


def test_continuous_similarity_is_one_minus_d():
    logits, group = torch.tensor([0.5, -0.5]), torch.zeros(2, dtype=torch.int64)
    own = torch.tensor([True, False])
    signal = score_step(logits, torch.zeros(2), group, own, METHODS["ril"], similarity="continuous")
    torch.testing.assert_close(signal.similarity_reward, 1 - torch.sigmoid(logits))


def test_a_missing_verdict_is_missing_and_not_wrong():
    answer = torch.tensor([1.0, torch.nan, 0.0, 1.0])
    logits, group = torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.zeros(4, dtype=torch.int64)
    own = torch.tensor([True, True, False, False])
    signal = score_step(logits, answer, group, own, METHODS["ril"])
    assert signal.reward.isnan().tolist() == [False, True, False, False]
    torch.testing.assert_close(signal.advantage, torch.tensor([1 / 3, 0.0, -2 / 3, 1 / 3]))
    # Imitation does not ask for the verdict: nothing is missing.
    imitation = score_step(logits, answer, group, own, METHODS["imitation"])
    assert not imitation.reward.isnan().any()


def test_extra_rewards_are_added():
    group, own = torch.zeros(2, dtype=torch.int64), torch.tensor([True, True])
    extra = {"a": torch.tensor([0.5, 0.0]), "b": torch.tensor([0.25, 0.0])}
    signal = score_step(
        None, torch.tensor([0.0, 1.0]), group, own, METHODS["dr-grpo"], extra_rewards=extra
    )
    assert signal.reward.tolist() == [0.75, 1.0]
    assert signal.advantage.tolist() == [-0.125, 0.125]


def test_a_broken_discriminator_makes_every_advantage_nan():
    logits = torch.tensor([torch.nan, 1.0])
    group, own = torch.zeros(2, dtype=torch.int64), torch.tensor([True, False])
    signal = score_step(logits, torch.ones(2), group, own, METHODS["ril"])
    assert signal.advantage.isnan().all()


def test_a_method_with_a_discriminator_needs_its_logits():
    group, own = torch.zeros(2, dtype=torch.int64), torch.tensor([True, False])
    with pytest.raises(ValueError, match="logits"):
        score_step(None, torch.ones(2), group, own, METHODS["ril"])
