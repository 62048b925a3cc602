"""Words and lines of the progress of a run; pure functions of what its files say."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rilbench.data.rollout_groups import GroupResponse, RolloutGroup
from rilbench.train.activity import PARTS, Activity

Step = Mapping[str, Any]
"""A line of ``metrics.jsonl``."""

_RECENT = 50
"""Steps whose time tells how long the others take."""
_CHARACTERS = 210
"""Of a text of a sample: three lines of a narrow terminal."""


def duration(seconds: float) -> str:
    """A time as people say it: ``0:42``, ``7:05``, ``3 h 20 min``, ``2 d 5 h``."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}:{int(seconds % 60):02d}"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def clock_time(when: datetime, now: datetime) -> str:
    """A time ahead as people say it: ``14:20``, ``Tue 14:20``, ``Tue 15 Dec 14:20``."""
    if when.date() == now.date():
        return f"{when:%H:%M}"
    return f"{when:%a %H:%M}" if when - now < timedelta(days=6) else f"{when:%a %-d %b %H:%M}"


def seconds_left(steps: Sequence[Step], total: int) -> float:
    """How long the remaining steps take, as the last ones did, scoring and saving included."""
    recent = steps[-_RECENT:]
    beside = sum(
        step.get("verl", {}).get("timing_s/testing", 0.0) + step.get("seconds_saving", 0.0)
        for step in recent
    )
    # The median, as a process's first step takes longer.
    one = statistics.median(step["seconds"] for step in recent[-20:]) + beside / len(recent)
    return float((total - steps[-1]["step"]) * one)


def left_and_clock(seconds: float, now: datetime) -> str:
    """What is left, and when that will be."""
    return f"{duration(seconds)}, done at {clock_time(now + timedelta(seconds=seconds), now)}"


def dev_line(steps: Sequence[Step]) -> str:
    """The last score on the dev split, and the best; "" before one."""
    scored = [step for step in steps if step.get("dev_accuracy") is not None]
    if not scored:
        return ""
    last, best = scored[-1], max(scored, key=lambda step: step["dev_accuracy"])
    before = steps[0].get("dev_accuracy_before")
    return (
        f"{last['dev_accuracy']:.2f} at step {last['step']}, "
        f"best {best['dev_accuracy']:.2f} at step {best['step']}"
        + (f", {before:.2f} before training" if before is not None else "")
    )


def seconds_line(step: Step) -> str:
    """The seconds of a step's parts and its speed; "" where they were not measured."""
    verl = step.get("verl", {})
    seconds = {name: verl.get(f"timing_s/{name}") for name in PARTS}
    parts = [
        f"{PARTS[name]} {value:.1f}"
        for name, value in seconds.items()
        if value is not None and value >= 0.05
    ]
    if not parts:
        return ""
    line = f"{', '.join(parts)} s"
    if seconds["gen"] and step.get("sampled_tokens"):
        line += f"; {step['sampled_tokens'] / seconds['gen']:,.0f} tokens/s sampled"
    if mfu := verl.get("perf/mfu/actor"):
        line += f"; MFU {mfu:.2f}"
    if memory := verl.get("actor/perf/max_memory_reserved_gb"):  # 0 on a CPU
        line += f"; {memory:.1f} GB of each GPU"
    return line


def activity_line(now: Activity, clock: float) -> str:
    """What goes on, and for how long; ``clock`` in seconds since the epoch."""
    place = f"step {now.step}: " if now.step else ""
    count = f", {now.done} of {now.of} responses" if now.of else ""
    took = duration(max(0.0, clock - now.since))
    return f"{place}{PARTS.get(now.part, now.part)}{count}, for {took}"


def sample_lines(group: RolloutGroup) -> list[tuple[str, str]]:
    """A group's question, and the first response of the student and of a teacher, with labels."""
    lines = [("question", _middle_out(group.text.replace("<image>", ""))), ("answer", group.gold)]
    first: dict[bool, GroupResponse] = {}
    for response in group.responses:
        first.setdefault(response.source == "student", response)
    for _, response in sorted(first.items(), reverse=True):
        text = _middle_out(response.response) or "(nothing)"
        lines.append((response.source, f"{text}  → {_verdict(response)}"))
    return [(label, text) for label, text in lines if text]


def _verdict(response: GroupResponse) -> str:
    parts = [response.verdict]
    if response.reward is not None:
        parts.append(f"reward {response.reward:g}")
    if response.advantage is not None:
        parts.append(f"advantage {response.advantage:+.2f}")
    return ", ".join(parts)


def _middle_out(text: str) -> str:
    """A text on one line; of a long one the start and the end, where the answer is."""
    text = " ".join(text.split())
    half = _CHARACTERS // 2
    return text if len(text) <= _CHARACTERS else f"{text[:half]} … {text[-half:]}"
