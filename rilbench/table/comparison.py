"""Everything that `rilbench compare` says about two evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import compared
from rilbench.table.build import choose_benchmarks
from rilbench.table.paired_test import Paired, paired
from rilbench.table.question_diff import Difference, differences, find_evaluation, matched
from rilbench.table.recipe_diff import SettingDifferences, differing_settings
from rilbench.table.types import in_order


@dataclass(frozen=True)
class Comparison:
    """Two evaluations, their benchmarks, and the questions whose outcomes differ."""

    first: Evaluation
    second: Evaluation
    benchmarks: list[Paired]
    questions: list[Difference]
    settings: SettingDifferences | None = None
    """In which the recipes of their training runs differ; None if one has no run in the ledger."""

    def changed(self, only: str = "") -> list[Difference]:
        """Return the questions whose outcomes differ; those "gained" or "lost" alone."""
        if not only:
            return self.questions
        sign = 1 if only == "gained" else -1
        return [question for question in self.questions if sign * (question.change or 0) > 0]


def read_comparison(
    ledger: Ledger, first: str, second: str, benchmarks: Sequence[str] = ()
) -> Comparison:
    """Compare two evaluations.

    Args:
        ledger: holds both.
        first: an evaluation, named as in `find_evaluation`.
        second: another.
        benchmarks: only these; all if empty.

    Raises:
        UserError: there is no such evaluation or benchmark, or the two have no question in common.
    """
    one, two = find_evaluation(ledger, first), find_evaluation(ledger, second)
    ids, same_kit = (one.id or 0, two.id or 0), one.kit == two.kit
    if same_kit:
        # The responses to questions on which the two agree need not be read.
        pairs, (left, right) = compared(ledger, *ids)
    else:
        left, right = ledger.samples(ids[0]), ledger.samples(ids[1])
        pairs = matched(left, right, same_kit=False)
    known = in_order(score.benchmark for side in (one, two) for score in side.scores)
    if chosen := choose_benchmarks(benchmarks, known):
        pairs = [pair for pair in pairs if pair.benchmark in chosen]
        left = [sample for sample in left if sample.benchmark in chosen]
        right = [sample for sample in right if sample.benchmark in chosen]
    questions = differences(left, right, same_kit=same_kit)
    settings = differing_settings(ledger.runs(), one, two)
    return Comparison(one, two, paired(pairs, one, two), questions, settings)
