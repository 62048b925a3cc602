"""Synthetic histories: each warning appears when it should, and not in a healthy run."""

import random

import pytest

from rilbench.train.health import MEANING, Thresholds, warnings

HEALTHY = {
    "answer_reward_student": 0.5,
    "similarity_reward_student": 0.3,
    "discriminator_accuracy": 0.8,
    "tokens_student": 12.0,
    "tokens_teacher": 14.0,
    "entropy": 0.6,
    "groups_without_signal": 0.3,
}


def history(steps=30, **courses):
    """Lines of metrics; a course is a function of the run's share that is done, 0 to 1."""
    draw = random.Random(0)
    lines = []
    for step in range(steps):
        line = {name: value * draw.uniform(0.95, 1.05) for name, value in HEALTHY.items()}
        line |= {name: course(step / (steps - 1)) for name, course in courses.items()}
        lines.append({"step": step + 1, **line})
    return lines


def test_a_healthy_run_is_never_warned_of():
    lines = history(
        answer_reward_student=lambda t: 0.3 + 0.5 * t,
        similarity_reward_student=lambda t: 0.1 + 0.3 * t,
        tokens_student=lambda t: 4 + 10 * t,  # towards the teachers' length
        entropy=lambda t: 0.8 - 0.5 * t,
    )
    for step in range(1, len(lines) + 1):
        assert warnings(lines[:step]) == []


@pytest.mark.parametrize(
    ("courses", "expected"),
    [
        ({"answer_reward_student": lambda t: 0.6 - 0.5 * t}, "collapse"),
        ({"entropy": lambda t: 0.8 * 0.001**t}, "collapse"),
        (
            {"similarity_reward_student": lambda _: 0.0, "discriminator_accuracy": lambda _: 1.0},
            "saturation",
        ),
        (
            {"similarity_reward_student": lambda _: 1.0, "discriminator_accuracy": lambda _: 0.5},
            "saturation",
        ),
        ({"tokens_student": lambda t: 12 + 40 * t}, "length-hacking"),
        ({"groups_without_signal": lambda t: 0.5 + 0.5 * t}, "no-signal"),
    ],
)
def test_each_ill_is_named_and_only_it(courses, expected):
    lines = history(**courses)
    assert warnings(lines) == [expected]
    assert warnings(lines[: Thresholds().window]) == [], "nothing to compare with yet"
    assert expected in MEANING


def test_one_odd_step_is_not_saturation():
    lines = history(similarity_reward_student=lambda _: 0.0, discriminator_accuracy=lambda _: 1.0)
    lines[-2]["similarity_reward_student"] = 0.2
    assert warnings(lines) == []


def test_longer_responses_that_are_more_often_right_are_not_hacking():
    lines = history(
        tokens_student=lambda t: 12 + 40 * t, answer_reward_student=lambda t: 0.3 + 0.4 * t
    )
    assert warnings(lines) == []


def test_without_teachers_the_start_alone_is_the_measure():
    lines = history(tokens_student=lambda t: 12 + 40 * t)
    own = [
        {k: v for k, v in line.items() if "teacher" not in k and "discriminator" not in k}
        for line in lines
    ]
    assert warnings(own) == ["length-hacking"]


def test_thresholds_can_be_set_and_missing_figures_are_no_ill():
    lines = history(groups_without_signal=lambda _: 0.6)
    assert warnings(lines) == []
    assert warnings(lines, Thresholds(no_signal=0.5)) == ["no-signal"]
    assert warnings([{"step": s, "entropy": None} for s in range(20)]) == []
