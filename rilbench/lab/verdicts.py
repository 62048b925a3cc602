"""What the run results say about each claim: paired differences, intervals, cost, verdict.

And whether a regime counts: its positive controls.
"""

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

SFT_GAIN, RL_GAIN = 3.0, 1.0
"""What SFT, and the best of the other methods, must gain in a regime that counts, in points."""

ResultsByName = Mapping[str, Mapping[int, RunResult]]
"""Results of one regime in one experiment: name of the run → seed → result."""


@dataclass(frozen=True)
class ClaimResult:
    """The verdict on one claim, with the numbers behind it.

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


def by_name(results: Iterable[RunResult], regime: str) -> dict[str, dict[int, RunResult]]:
    """Return a regime's results by name of the run and seed."""
    grouped: dict[str, dict[int, RunResult]] = {}
    for result in results:
        if result.regime == regime:
            grouped.setdefault(result.name, {})[result.seed] = result
    return grouped


def judge_claims(
    experiment: Experiment, results: Sequence[RunResult], controls: Mapping[str, Controls]
) -> list[ClaimResult]:
    """Return the verdict on every claim that the experiment decides.

    The claims about one part of an experiment in one regime are a family for Holm. Claims without
    all seeds count in it with a p-value of 1.

    Args:
        experiment: the experiment.
        results: its results.
        controls: of the regimes; where they failed there is no verdict.

    Raises:
        UserError: two compared runs were asked different questions.
    """
    families: dict[tuple[str, str], list[ClaimResult]] = {}
    for claim in (claim for claim in CLAIMS if claim.experiment == experiment.name):
        compared = _compare(claim, experiment, by_name(results, claim.regime))
        # The part that is changed: of the two runs, not the experiment's first.
        changed = claim.worse if claim.better == experiment.runs[0].name else claim.better
        part = next((spec.part for spec in experiment.runs if spec.name == changed), "")
        families.setdefault((claim.regime, part), []).append(compared)
    judged = []
    for (regime, _), family in families.items():
        adjusted = holm([compared.p_value for compared in family])
        equal = holm([compared.p_equal for compared in family])
        level = 1 - ALPHA / len(family)
        own = controls.get(regime)
        failed = own is not None and own.finished and not own.passed
        judged += [
            _with_verdict(compared, p, q, level, failed)
            for compared, p, q in zip(family, adjusted, equal, strict=True)
        ]
    return judged


@dataclass(frozen=True)
class Controls:
    """A regime's positive controls: teachers can be learned from, and so can rewards.

    Attributes:
        start, teachers: scores of the untrained student and of its teachers.
        sft: gain of SFT over the untrained student; None before all seeds have finished.
        rl: the largest gain of a method without SFT, and its run's name; None as above.
    """

    start: float
    teachers: Mapping[str, float]
    sft: Interval | None
    rl: tuple[str, Interval] | None

    @property
    def finished(self) -> bool:
        """All seeds of what it needs are there."""
        return self.sft is not None and self.rl is not None

    @property
    def passed(self) -> bool:
        """SFT gains at least 3 points and one of the others at least 1, beyond chance."""
        if self.sft is None or self.rl is None:
            return False
        name_and_gain = ((SFT_GAIN, self.sft), (RL_GAIN, self.rl[1]))
        return all(gain.mean >= least and gain.low > 0 for least, gain in name_and_gain)


def regime_controls(experiment: Experiment, results: Sequence[RunResult]) -> dict[str, Controls]:
    """Return the controls of an experiment's regimes whose untrained student was scored."""
    found = {}
    for regime in experiment.regimes:
        grouped = by_name(results, regime)
        start = _only_mean(grouped, "untrained", experiment)
        if start is None:
            continue
        gains: dict[str, Interval] = {}
        for spec in experiment.runs:
            runs = list(grouped.get(spec.name, {}).values())
            means = [run.mean(experiment.benchmarks) for run in runs]
            scores = [mean for mean in means if mean is not None]
            # As in a verdict, one seed may have failed.
            if spec.method and len(runs) == len(experiment.seeds) <= len(scores) + 1:
                gains[spec.name] = seed_interval([score - start for score in scores])
        # What a run gains after SFT is mostly SFT's.
        alone = [s.name for s in experiment.runs if not s.settings.get("sft.steps")]
        rl = {name: gains[name] for name in alone if name in gains}
        best = max(rl, key=lambda name: rl[name].mean, default=None)
        teachers = {
            spec.model: _only_mean(grouped, spec.name, experiment)
            for spec in experiment.runs
            if spec.name.startswith("teacher-") and spec.model
        }
        found[regime] = Controls(
            start,
            {name: score for name, score in teachers.items() if score is not None},
            gains.get("sft"),
            None if best is None else (best, rl[best]),
        )
    return found


def _only_mean(grouped: ResultsByName, name: str, experiment: Experiment) -> float | None:
    """The score of a model that was not trained."""
    result = grouped.get(name, {}).get(0)
    return None if result is None else result.mean(experiment.benchmarks)


def _with_verdict(
    compared: ClaimResult, p_value: float, p_equal: float, level: float, failed_controls: bool
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
    if failed_controls:
        verdict = ClaimVerdict.NO_CONTROL
    return replace(
        compared,
        p_value=p_value,
        p_equal=p_equal,
        verdict=verdict,
        detectable=detectable_difference(compared.differences, level=level),
    )


def _compare(claim: Claim, experiment: Experiment, grouped: ResultsByName) -> ClaimResult:
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
    compared = ClaimResult(claim, len(pairs), failed, len(experiment.seeds))
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
        name = f"{result.regime}/{result.name}-{result.seed}"
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
