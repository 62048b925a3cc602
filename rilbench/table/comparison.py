"""All that `rilbench compare` has to say of two evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import compared
from rilbench.table.paired_test import Paired, paired
from rilbench.table.question_diff import Difference, differences, find_evaluation, matched


@dataclass(frozen=True)
class Comparison:
    """Two evaluations, their benchmarks, and the questions whose outcomes differ."""

    first: Evaluation
    second: Evaluation
    benchmarks: list[Paired]
    questions: list[Difference]


def read_comparison(ledger: Ledger, first: str, second: str) -> Comparison:
    """Compare two evaluations, each named as `find_evaluation` understands.

    Raises:
        UserError: there is no such evaluation, or the two have no question in common.
    """
    one, two = find_evaluation(ledger, first), find_evaluation(ledger, second)
    numbers = one.id or 0, two.id or 0
    if one.kit == two.kit:
        # Of the questions on which the two agree, the answers need not be read.
        pairing, samples = compared(ledger, *numbers)
    else:
        samples = ledger.samples(numbers[0]), ledger.samples(numbers[1])
        pairing = matched(*samples, same_kit=False)
    found = differences(*samples, same_kit=one.kit == two.kit)
    return Comparison(one, two, paired(pairing, one, two), found)
