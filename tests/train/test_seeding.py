import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rilbench.train.seeding import (
    assigned_teacher,
    noisy_verdict,
    sample_teacher_responses,
    seed_of,
)

SAVED = {"72b": ["a", "b", "c", "d"], "78b": ["e", "f", "g", "h"]}


def test_seeds_depend_on_every_part_and_on_nothing_else():
    assert seed_of("x", 1, 2) == seed_of("x", 1, 2)
    assert len({seed_of("x", i, j) for i in range(30) for j in range(30)}) == 900
    assert seed_of("x", 1, 12) != seed_of("x", 11, 2), "parts are kept apart"


def test_split_shares_the_rows_between_teachers():
    rows = sample_teacher_responses(SAVED, 4, "split", 0, 1, "q")
    assert Counter(teacher for teacher, _ in rows) == {"72b": 2, "78b": 2}
    assert all(response in SAVED[teacher] for teacher, response in rows)
    assert len(set(rows)) == 4, "no response twice while there are enough"


def test_each_gives_every_teacher_a_group():
    rows = sample_teacher_responses(SAVED, 8, "each", 0, 1, "q")
    assert Counter(teacher for teacher, _ in rows) == {"72b": 4, "78b": 4}


def test_steps_see_different_responses():
    seen = {
        r for step in range(30) for r in sample_teacher_responses(SAVED, 4, "split", 0, step, "q")
    }
    assert len(seen) == 8


def test_odd_rows_do_not_always_favour_one_teacher():
    extra = Counter(
        Counter(
            t for t, _ in sample_teacher_responses(SAVED, 3, "split", 0, step, "q")
        ).most_common(1)[0][0]
        for step in range(60)
    )
    assert min(extra.values()) > 10


@given(
    st.dictionaries(st.text(min_size=1), st.lists(st.text(), min_size=1), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_always_as_many_rows_as_asked_for(saved, rows):
    chosen = sample_teacher_responses(saved, rows, "split", 0)
    assert len(chosen) == rows
    assert all(response in saved[teacher] for teacher, response in chosen)


def test_a_simulated_judge_errs_at_its_rates_and_the_same_way_again():
    texts = [f"response {i}" for i in range(4000)]
    for verdict, rate in ((0.0, 0.3), (1.0, 0.1)):
        given = [noisy_verdict(verdict, 0.3, 0.1, 5, "q", text) for text in texts]
        assert sum(v != verdict for v in given) / len(given) == pytest.approx(rate, abs=0.03)
        assert given == [noisy_verdict(verdict, 0.3, 0.1, 5, "q", text) for text in texts]
        assert given != [noisy_verdict(verdict, 0.3, 0.1, 6, "q", text) for text in texts]
        assert given != [noisy_verdict(verdict, 0.3, 0.1, 5, "r", text) for text in texts]


def test_an_exact_judge_never_errs_and_a_missing_verdict_stays_missing():
    assert [noisy_verdict(v, 0.0, 0.0, i) for i in range(99) for v in (0.0, 1.0)] == [0, 1] * 99
    assert math.isnan(noisy_verdict(math.nan, 1.0, 0.0, 1))
    assert (noisy_verdict(0.0, 1.0, 0.0, 1), noisy_verdict(1.0, 0.0, 1.0, 1)) == (1, 0)


def test_a_groups_samples_are_shared_among_the_teachers_that_score_them():
    for step in range(20):
        names = [assigned_teacher(("b", "a"), session, 1, step, "q") for session in range(8)]
        assert sorted(names) == ["a"] * 4 + ["b"] * 4
        assert names == [assigned_teacher({"a", "b"}, i, 1, step, "q") for i in range(8)]
    first = {assigned_teacher(("a", "b"), 0, 1, step, "q") for step in range(20)}
    assert first == {"a", "b"}, "an odd place is not always the same teacher's"
