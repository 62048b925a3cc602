"""Every random choice of a run is seeded by (run seed, step, question, session) and nothing else.

Arrival order, worker count and resumption therefore change nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def seed_of(*parts: int | str) -> int:
    """Return a 63-bit seed from the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators, as a new process would have them."""
    import numpy as np  # here: the command line loads this module before it needs torch
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def sample_teacher_responses(
    saved: Mapping[str, Sequence[T]], count: int, mix: str, *parts: int | str
) -> list[tuple[str, T]]:
    """Sample the teacher responses of one group: ``count`` pairs (teacher, response).

    Args:
        saved: each teacher's saved responses to the question, or what stands for them.
        count: G for ``split`` and ``routed``, G times the number of teachers for ``each``.
        mix: ``split`` shares the group's places among the teachers (which of them gets an odd
            place is sampled too), ``each`` gives every teacher the same number; ``routed`` has
            one teacher here.
        parts: what seeds the sample, e.g. (run seed, step, question).

    A teacher with fewer saved responses than its share gives some of them twice.
    """
    sampler = random.Random(seed_of("saved", *parts))
    teachers = sorted(saved)
    if mix == "split":
        sampler.shuffle(teachers)
    shares = [count // len(teachers) + (i < count % len(teachers)) for i in range(len(teachers))]
    chosen = []
    for teacher, share in zip(teachers, shares, strict=True):
        responses = list(saved[teacher])
        sampler.shuffle(responses)
        chosen += [(teacher, responses[i % len(responses)]) for i in range(share)]
    return chosen


def assigned_teacher(teachers: Collection[str], session: int, *parts: int | str) -> str:
    """The teacher of a sampled response in distillation: a group's are shared among them.

    Args:
        teachers: those of the question.
        session: the response's place in its group.
        parts: what seeds which of them comes first, e.g. (run seed, step, question).
    """
    order = sorted(teachers)
    random.Random(seed_of("assigned", *parts)).shuffle(order)
    return order[session % len(order)]


def noisy_verdict(
    verdict: float, false_positive_rate: float, false_negative_rate: float, *parts: int | str
) -> float:
    """Return an exact judge's verdict with simulated errors (Table 5e).

    Args:
        verdict: 1 right, 0 wrong; NaN (missing) stays.
        false_positive_rate: share of wrong responses that are called right.
        false_negative_rate: share of right responses that are called wrong.
        parts: what seeds the error, (run seed, question id, response): the same response to the
            same question meets the same error at every step, as a real judge's would.
    """
    error_rate = {0.0: false_positive_rate, 1.0: false_negative_rate}.get(verdict, 0.0)
    is_error = random.Random(seed_of("judge", *parts)).random() < error_rate
    return 1.0 - verdict if is_error else verdict
