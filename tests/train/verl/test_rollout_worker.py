"""A group's responses become columns, whichever of them comes first."""

import itertools

import pytest
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

from rilbench.train.verl.rollout_worker import _columns, response_fields

BOTH = {"prompt_ids": [1, 2], "num_turns": 2, "reward_score": 1.0}


def sampled():
    """As verl's single-turn loop gives it: with fields that a saved response does not set."""
    return AgentLoopOutput(
        **BOTH,
        response_ids=[3, 4, 5],
        response_mask=[1, 1, 1],
        response_logprobs=None,
        routed_experts=None,
        multi_modal_data={"images": []},
        mm_processor_kwargs={},
        mm_processor_output=None,
        metrics={"generate_sequences": 0.1},
        extra_fields={"source": "student"},
    )


def saved():
    """As `RILAgentLoop` makes it of a teacher's response."""
    return AgentLoopOutput(
        **BOTH,
        response_ids=[6],
        response_mask=[1],
        multi_modal_data={"images": []},
        metrics={"num_preempted": -1},
        extra_fields={"source": "72b"},
    )


@pytest.mark.parametrize("order", list(itertools.permutations([sampled, sampled, saved])))
def test_a_sampled_response_may_come_before_a_saved_one_or_after(order):
    import torch

    rows = []
    for each in order:
        fields = response_fields(each())
        rows.append({**fields, "position_ids": torch.arange(2 + len(fields["responses"]))})
    columns = _columns(rows)
    lengths = [len(responses) for responses in columns["responses"].unbind()]
    assert lengths == [3 if each is sampled else 1 for each in order]
    assert [dict(extra)["source"] for extra in columns["extra_fields"]] == [
        "student" if each is sampled else "72b" for each in order
    ]
