"""A prompt computed once gives each row's attention; cuts and orders keep a question's rows."""

import math
import random
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from rilbench.model.varlen import flash_attn_varlen_func
from rilbench.train.batch import grouped_order, nested
from rilbench.train.verl.shared_prompts import SharedPrompts, cut_by_tokens, cut_further
from rilbench.train.verl.workers import fix_positions

QUERY_HEADS, KEY_HEADS, SIZE = 4, 2, 8


def whole_rows(prompts, responses, questions, query, key, value):
    """Causal attention of each row by itself, in float64, at its response's tokens."""
    starts, found, at = {}, [], 0
    for row, question in enumerate(questions):
        if row == 0 or question != questions[row - 1]:
            starts[question] = range(at, at + prompts[row])
            at += prompts[row]
        own = range(at, at + responses[row])
        at += responses[row]
        tokens = [*starts[question], *own]
        q, k, v = (each[tokens].double() for each in (query, key, value))
        k, v = (each.repeat_interleave(QUERY_HEADS // KEY_HEADS, 1) for each in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / SIZE**0.5
        ahead = torch.ones(len(tokens), len(tokens), dtype=torch.bool).triu(1)
        weights = scores.masked_fill(ahead, -torch.inf).softmax(-1)
        found.append(torch.einsum("hqk,khd->qhd", weights, v)[prompts[row] :])
    return torch.cat(found)


@st.composite
def batches(draw):
    """Groups of unequal sizes; the rows of a group have one prompt."""
    prompts, responses, questions = [], [], []
    for question in range(draw(st.integers(1, 4))):
        prompt = draw(st.integers(1, 9))
        for _ in range(draw(st.integers(1, 4))):
            prompts.append(prompt)
            responses.append(draw(st.integers(1, 12)))
            questions.append(question)
    return prompts, responses, questions


@settings(max_examples=60, deadline=None)
@given(batches())
def test_attention_is_that_of_whole_rows(batch):
    layout = SharedPrompts.of(*batch)
    torch.manual_seed(0)
    number = len(layout.source)
    query = torch.randn(number, QUERY_HEADS, SIZE)
    key, value = torch.randn(2, number, KEY_HEADS, SIZE)
    found = layout.attend(query, key, value, None)
    expected = whole_rows(*batch, query, key, value)
    assert torch.allclose(found[layout.responses].double(), expected, atol=1e-5)
    # As on a GPU: one call of the packed kernels' interface.
    cumulative = [torch.tensor([0, *lengths]).cumsum(0).int() for lengths in layout_lengths(layout)]
    longest = [max(lengths) for lengths in layout_lengths(layout)]
    packed = flash_attn_varlen_func(
        query, key[layout.keys], value[layout.keys], *cumulative, *longest, causal=True
    )
    assert torch.allclose(found, packed, atol=1e-6)


def layout_lengths(layout):
    return layout.query_lengths, layout.key_lengths


@settings(max_examples=60, deadline=None)
@given(batches())
def test_places_in_rows_and_in_the_sequence(batch):
    prompts, responses, questions = batch
    layout = SharedPrompts.of(*batch)
    rows = []  # every row's tokens, told apart by question, or by row in its response
    for row, question in enumerate(questions):
        rows += [("prompt", question, i) for i in range(prompts[row])]
        rows += [("response", row, i) for i in range(responses[row])]
    sequence = [rows[i] for i in layout.source]
    assert len(sequence) == sum(prompts[row] for row in layout.first_rows) + sum(responses)
    assert [sequence[i] for i in layout.responses] == [r for r in rows if r[0] == "response"]
    for place, in_rows, token in zip(
        layout.predicting, layout.predicted, layout.responses, strict=True
    ):
        assert sequence[place] == rows[in_rows]
        assert rows[in_rows + 1] == sequence[token]
        kind, row, i = sequence[token]
        if i == 0:
            assert sequence[place] == ("prompt", questions[row], prompts[row] - 1)
        else:
            assert sequence[place] == (kind, row, i - 1)


def test_neighbours_of_another_question_share_nothing():
    # Their words may be the same: the picture tells them apart.
    layout = SharedPrompts.of([3, 3], [2, 2], [7, 8])
    assert layout.first_rows == [0, 1]
    assert len(layout.source) == 10


@settings(max_examples=60, deadline=None)
@given(batches(), st.integers(21, 60))
def test_micro_batches_hold_their_budget_and_every_row_once(batch, budget):
    prompts, responses, questions = batch
    parts = cut_by_tokens(*batch, budget)
    assert [row for part in parts for row in part] == list(range(len(prompts)))

    def tokens(part):
        return sum(responses[row] for row in part) + sum(
            prompts[row]
            for place, row in enumerate(part)
            if place == 0 or questions[row] != questions[part[place - 1]]
        )

    assert all(tokens(part) <= budget for part in parts)
    # No fewer would do in this order.
    assert all(tokens([*one, other[0]]) > budget for one, other in pairwise(parts))
    more = cut_further(parts, len(prompts))
    assert more == [[row] for row in range(len(prompts))]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("mini_batches", [1, 2])
def test_ranks_get_whole_groups_as_far_as_they_divide(ranks, mini_batches):
    random.seed(ranks)
    group, questions = 8, 36  # the paper's: 4.5 groups for each of eight devices
    prompts = [random.randint(40, 1024) for _ in range(questions)]
    prompts = [prompt for prompt in prompts for _ in range(group)]
    responses = [random.randint(8, 400) for _ in prompts]
    size = len(prompts) // ranks // mini_batches
    together = math.gcd(group, size)
    order = grouped_order(
        prompts,
        responses,
        group=group,
        rows_together=together,
        ranks=ranks,
        mini_batches=mini_batches,
    )
    assert sorted(order) == list(range(len(prompts)))
    loads = []
    for rank in range(ranks):
        share = order[rank * size * mini_batches : (rank + 1) * size * mini_batches]
        for number in range(mini_batches):
            rows = share[number * size : (number + 1) * size]
            first = number * len(prompts) // mini_batches
            assert all(first <= row < first + len(prompts) // mini_batches for row in rows)
            runs = [[rows[0]]]
            for before, row in pairwise(rows):
                if row // group == before // group:
                    runs[-1].append(row)
                else:
                    runs.append([row])
            assert all(len(run) % together == 0 for run in runs), "neighbours stay together"
            assert sum(len(run) == group for run in runs) >= size // group
            loads.append(sum(prompts[run[0]] + sum(responses[r] for r in run) for run in runs))
    assert max(loads) / (sum(loads) / len(loads)) < 1.15


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 7, 2], [6]])
def test_positions_of_rows_of_one_length_are_nested_by_rows(lengths):
    """As TransferQueue and verl hand them on: nested by the wrong dimension where all are equal."""
    each = [torch.arange(4 * n).view(4, n) for n in lengths]
    positions = torch.nested.as_nested_tensor(each, layout=torch.jagged)
    data = TensorDict(
        {
            "input_ids": nested([torch.arange(n) for n in lengths]),
            "position_ids": positions,
        },
        batch_size=len(lengths),
    )
    tu.maybe_fix_3d_position_ids(data)
    fixed = fix_positions(data)
    assert all(torch.equal(a, b) for a, b in zip(fixed["position_ids"].unbind(), each, strict=True))
    chosen = tu.index_select_tensor_dict(fixed, [0])
    assert torch.equal(chosen["position_ids"].values(), each[0])
