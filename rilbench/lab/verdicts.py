"""What the run results say about each claim: paired differences, intervals, cost, verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rilbench.errors import UserError
from rilbench.lab.claims import ALPHA, CLAIMS, MARGIN, Claim, ClaimVerdict, decide, verdict_text
from rilbench.lab.experiment import Experiment
from rilbench.lab.run_result import RunResult
from rilbench.stats import (
    Array,
    Interval,
    detectable_difference,
    equivalence_p_value,
    holm,
    question_interval,
    seed_interval,
    seed_p_value,
)

ResultsByName = Mapping[str, Mapping[int, RunResult]]
"""Results of one student in one experiment: name of the run → seed → result."""


@dataclass(frozen=True)
class ClaimResult:
    """The verdict on one claim for one student, with the numbers behind it.

    Attributes:
        pairs: number of seeds for which both runs finished.
        differences: of the means, one for each of these seeds.
        failed: number of seeds for which a run failed.
        planned: number of seeds of the experiment.
        seeds: interval over seeds; None without pairs.
        questions: interval over questions; None without pairs.
        p_value: of the test over seeds, adjusted by Holm.
        p_equal: of the test that there is no difference, adjusted by Holm.
        detectable: the smallest difference, in points, that would have been found with a chance
            of 80 % at this spread, by the strictest of Holm's tests; None without a verdict.
        seconds, tokens: CPU seconds and sampled tokens of ``better`` divided by those of
            ``worse``; None where ``worse`` cost nothing.
    """

    claim: Claim
    student: str
    pairs: int
    failed: int
    planned: int
    differences: tuple[float, ...] = ()
    seeds: Interval | None = None
    questions: Interval | None = None
    p_value: float = 1.0
    p_equal: float = 1.0
    detectable: float | None = None
    seconds: float | None = None
    tokens: float | None = None
    verdict: ClaimVerdict = ClaimVerdict.NOT_RUN

    @property
    def text(self) -> str:
        """The printed verdict, with its reason where it needs one."""
        text = verdict_text(self.claim, self.verdict, self.seeds)
        if self.pairs and self.pairs + self.failed < self.planned:
            return f"{text} ({self.pairs} of {self.planned} seeds so far)"
        if self.failed:
            text += f" ({self.failed} of {self.planned} seeds failed)"
        if self.verdict is ClaimVerdict.CANNOT_TELL and self.detectable is not None:
            text += f" (would have seen {self.detectable:.1f} or more)"
        return text


def by_name(results: Iterable[RunResult], student: str) -> dict[str, dict[int, RunResult]]:
    """Return a student's results by name of the run and seed."""
    grouped: dict[str, dict[int, RunResult]] = {}
    for result in results:
        if result.student == student:
            grouped.setdefault(result.name, {})[result.seed] = result
    return grouped


def judge_claims(experiment: Experiment, results: Sequence[RunResult]) -> list[ClaimResult]:
    """Return the verdict on every claim that the experiment decides, for each student.

    The claims about one part of an experiment (the headline has one part) on one student are a
    family for Holm. Claims without all seeds count in it with a p-value of 1.

    Raises:
        UserError: two compared runs were asked different questions.
    """
    claims = [claim for claim in CLAIMS if claim.experiment == experiment.name]
    judged = []
    for student in experiment.students:
        grouped = by_name(results, student)
        families: dict[str, list[ClaimResult]] = {}
        for claim in claims:
            compared = _compare(claim, student, experiment, grouped)
            # The part that is changed: of the two runs, not the experiment's first.
            changed = claim.worse if claim.better == experiment.runs[0].name else claim.better
            part = next((spec.part for spec in experiment.runs if spec.name == changed), "")
            families.setdefault(part, []).append(compared)
        for family in families.values():
            adjusted = holm([compared.p_value for compared in family])
            equal = holm([compared.p_equal for compared in family])
            level = 1 - ALPHA / len(family)
            judged += [
                _with_verdict(compared, p, q, level)
                for compared, p, q in zip(family, adjusted, equal, strict=True)
            ]
    return judged


def _with_verdict(
    compared: ClaimResult, p_value: float, p_equal: float, level: float
) -> ClaimResult:
    """Return it with its verdict; the p-values are adjusted, ``level`` is the strictest test's."""
    if compared.seeds is None or compared.questions is None:
        state = ClaimVerdict.CANNOT_TELL if compared.failed else ClaimVerdict.NOT_RUN
        return replace(compared, p_value=1.0, p_equal=1.0, verdict=state)
    complete = compared.pairs + compared.failed == compared.planned
    # One failed seed leaves a verdict, two do not.
    if not complete or compared.pairs < max(2, compared.planned - 1):
        return replace(compared, p_value=1.0, p_equal=1.0, verdict=ClaimVerdict.CANNOT_TELL)
    verdict = decide(compared.claim, compared.seeds, compared.questions, p_value, p_equal)
    return replace(
        compared,
        p_value=p_value,
        p_equal=p_equal,
        verdict=verdict,
        detectable=detectable_difference(compared.differences, level=level),
    )


def _compare(
    claim: Claim, student: str, experiment: Experiment, grouped: ResultsByName
) -> ClaimResult:
    """Compare the two runs of a claim; the p-value is not adjusted yet."""

    def result(name: str, seed: int) -> RunResult | None:
        """The result of a seed; a model that is not trained has one result for all seeds."""
        results = grouped.get(name, {})
        only = results.get(0)
        return only if only is not None and only.model else results.get(seed)

    benchmarks = experiment.benchmarks
    pairs: list[tuple[RunResult, RunResult]] = []
    failed = 0
    for seed in experiment.seeds:
        better, worse = result(claim.better, seed), result(claim.worse, seed)
        if better is None or worse is None:
            continue
        if better.failure or worse.failure:
            failed += 1
        else:
            pairs.append((better, worse))
    compared = ClaimResult(claim, student, len(pairs), failed, len(experiment.seeds))
    if not pairs:
        return compared
    differences = [_mean(better, benchmarks) - _mean(worse, benchmarks) for better, worse in pairs]
    complete = len(pairs) + failed == len(experiment.seeds)
    return replace(
        compared,
        seeds=seed_interval(differences),
        questions=question_interval(_question_differences(pairs, benchmarks)),
        differences=tuple(differences),
        p_value=seed_p_value(differences, claim.null) if complete else 1.0,
        p_equal=equivalence_p_value(differences, MARGIN) if complete else 1.0,
        seconds=_ratio([(b.cost.seconds, w.cost.seconds) for b, w in pairs]),
        tokens=_ratio([(b.cost.sampled_tokens, w.cost.sampled_tokens) for b, w in pairs]),
    )


def _mean(result: RunResult, benchmarks: Sequence[str]) -> float:
    mean = result.mean(benchmarks)
    if mean is None:
        name = f"{result.student}/{result.name}-{result.seed}"
        raise UserError(f"{name} lacks a benchmark; run it again")
    return mean


def _question_differences(
    pairs: Sequence[tuple[RunResult, RunResult]], benchmarks: Sequence[str]
) -> dict[str, Array]:
    """Return each question's difference in points, averaged over seeds, by benchmark."""
    differences = {}
    for benchmark in benchmarks:
        both = [(better.outcomes[benchmark], worse.outcomes[benchmark]) for better, worse in pairs]
        if len({outcomes.questions for pair in both for outcomes in pair}) > 1:
            raise UserError(f"runs were asked different questions of {benchmark}; run them again")
        values = [np.asarray(b.values) - np.asarray(w.values) for b, w in both]
        differences[benchmark] = 100.0 * np.mean(values, axis=0)
    return differences


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    better, worse = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    return better / worse if worse else None
