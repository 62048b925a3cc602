"""Warnings about a run's health, from the metrics of its steps.

Policy and discriminator are trained against each other, which can fail while every number is
finite. Pure functions of the lines of ``metrics.jsonl``; a warning stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

History = Sequence[Mapping[str, Any]]
"""Lines of ``metrics.jsonl``, oldest first."""

MEANING = {
    "collapse": "the student answers far worse than at its start, or always says the same",
    "saturation": "the discriminator's verdict on the student is constant: similarity teaches "
    "nothing",
    "length-hacking": "responses grow far beyond the teachers' and are not more often right",
    "no-signal": "in most groups all rewards are equal: the update learns from few questions",
}
"""What each warning says to a user."""

SHOWN_BY = {
    "collapse": ("answer_reward_student", "entropy"),
    "saturation": ("similarity_reward_student", "discriminator_accuracy"),
    "length-hacking": ("tokens_student", "tokens_teacher"),
    "no-signal": ("groups_without_signal",),
}
"""The metrics in which each warning is seen."""


@dataclass(frozen=True)
class Thresholds:
    """When to warn; shares are between 0 and 1.

    From the lab's runs on dev (227 with a loop in six regimes, of which 51 lost 5 points or more;
    see results/nano). Of those that lost, 25 were warned of; of the 176 others two were, and four
    more by ``no_signal``, which says that little is learned and not that anything is lost. The
    fast engine records no entropy: its limit is from runs through verl, where healthy ones kept
    0.19 of it.
    """

    window: int = 5
    """Steps that are averaged; the first window is the start that others are compared with."""
    answer_share: float = 0.85
    """Collapse: the answer reward is below this share of its start …"""
    answer_drop: float = 0.15
    """… and has lost at least this much, which the questions of a window alone do not make up."""
    entropy_share: float = 0.1
    """Collapse: the entropy is below this share of its start."""
    saturated: float = 0.02
    """Saturation: the student's similarity reward is this close to 0 or 1 in a whole window …"""
    accuracy: float = 0.98
    """… and, at 0, the discriminator at least this often right."""
    longer_than_teacher: float = 1.5
    """Length hacking: the student's tokens are this many times its teachers' …"""
    longer_than_start: float = 1.3
    """… and this many times its own start; without teacher rows this alone, squared …"""
    answer_gain: float = 0.02
    """… while the answer reward has not gained this much."""
    no_signal: float = 0.7
    """No signal: this share of the groups has equal rewards."""


def warnings(history: History, limits: Thresholds | None = None) -> list[str]:
    """Names of what is wrong after the last step, of `MEANING`; nothing in the first window."""
    limits = limits or Thresholds()
    if len(history) <= limits.window:
        return []
    checks = {
        "collapse": _collapse,
        "saturation": _saturation,
        "length-hacking": _length_hacking,
        "no-signal": _no_signal,
    }
    return [name for name, check in checks.items() if check(history, limits)]


def _collapse(history: History, limits: Thresholds) -> bool:
    start, now = _start_and_now(history, "answer_reward_student", limits)
    if start is not None and now is not None:
        fell = now < limits.answer_share * start and start - now >= limits.answer_drop
        if fell:
            return True
    start, now = _start_and_now(history, "entropy", limits)
    return start is not None and now is not None and now < limits.entropy_share * start


def _saturation(history: History, limits: Thresholds) -> bool:
    recent = history[-limits.window :]
    rewards = [line.get("similarity_reward_student") for line in recent]
    accuracies = [line.get("discriminator_accuracy") for line in recent]
    none = all(r is not None and r <= limits.saturated for r in rewards)
    always = all(r is not None and r >= 1 - limits.saturated for r in rewards)
    seen_through = all(a is not None and a >= limits.accuracy for a in accuracies)
    return always or (none and seen_through)


def _length_hacking(history: History, limits: Thresholds) -> bool:
    start, now = _start_and_now(history, "tokens_student", limits)
    before, answer = _start_and_now(history, "answer_reward_student", limits)
    if start is None or now is None or before is None or answer is None:
        return False
    _, teacher = _start_and_now(history, "tokens_teacher", limits)
    if teacher is None:
        longer = now > limits.longer_than_start**2 * start
    else:
        longer = now > limits.longer_than_start * start
        longer = longer and now > limits.longer_than_teacher * teacher
    return longer and answer - before < limits.answer_gain


def _no_signal(history: History, limits: Thresholds) -> bool:
    _, now = _start_and_now(history, "groups_without_signal", limits)
    return now is not None and now >= limits.no_signal


def _start_and_now(
    history: History, name: str, limits: Thresholds
) -> tuple[float | None, float | None]:
    """Means of a figure over the first and the last window; None where it was never measured."""
    return _mean(history[: limits.window], name), _mean(history[-limits.window :], name)


def _mean(lines: History, name: str) -> float | None:
    found = [line[name] for line in lines if line.get(name) is not None]
    return sum(found) / len(found) if found else None
