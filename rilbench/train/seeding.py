"""Every random choice of a run, from (run seed, step, question, row) and nothing else.

Arrival order, worker count and resumption therefore change nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def choose_saved(
    saved: Mapping[str, Sequence[str]], rows: int, mix: str, *parts: int | str
) -> list[tuple[str, str]]:
    """Choose the saved teacher rows of one group: ``rows`` pairs (teacher, response).

    Args:
        saved: each teacher's saved responses to the question.
        rows: rows to choose: G for ``split``, G times the teachers for ``each``.
        mix: ``split`` shares the rows among the teachers (who gets an odd one is drawn too),
            ``each`` gives every teacher the same number.
        parts: what the draw depends on, e.g. (run seed, step, question).

    A teacher with fewer saved responses than its share gives some of them twice.
    """
    draw = random.Random(seed_of("saved", *parts))
    teachers = sorted(saved)
    if mix == "split":
        draw.shuffle(teachers)
    shares = [rows // len(teachers) + (i < rows % len(teachers)) for i in range(len(teachers))]
    chosen = []
    for teacher, share in zip(teachers, shares, strict=True):
        responses = list(saved[teacher])
        draw.shuffle(responses)
        chosen += [(teacher, responses[i % len(responses)]) for i in range(share)]
    return chosen


def simulated_verdict(
    verdict: float, false_positive_rate: float, false_negative_rate: float, *parts: int | str
) -> float:
    """Return the verdict of a judge that errs at known rates; 0 and 1 are wrong and right.

    Args:
        verdict: of an exact judge; NaN (missing) stays.
        false_positive_rate: share of wrong responses that are called right.
        false_negative_rate: share of right responses that are called wrong.
        parts: what the error depends on, (run seed, question id, response): the same response to
            the same question meets the same error at every step, as a real judge's would.
    """
    rates = {0.0: false_positive_rate, 1.0: false_negative_rate}
    drawn = random.Random(seed_of("judge", *parts)).random()
    return 1.0 - verdict if drawn < rates.get(verdict, 0.0) else verdict
