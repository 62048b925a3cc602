"""What the rows say about each claim: paired differences, intervals, cost, verdict."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rilbench.errors import UserError
from rilbench.lab.claims import CLAIMS, MARGIN, Claim, Verdict, verdict, words
from rilbench.lab.experiment import Experiment
from rilbench.lab.run_result import Row
from rilbench.stats import (
    Array,
    Interval,
    holm,
    question_interval,
    seed_interval,
    seed_p_value,
)

Group = Mapping[str, Mapping[int, Row]]
"""Rows of one student in one experiment: name → seed → row."""


@dataclass(frozen=True)
class Finding:
    """One claim on one student.

    Attributes:
        claim, student: what on whom.
        pairs: seeds of which both runs finished.
        failed: seeds of which one run failed.
        planned: seeds of the experiment.
        seeds: interval over seeds; None without pairs.
        questions: interval over questions; None without pairs.
        p_value: of the test over seeds, adjusted by Holm.
        seconds, tokens: CPU seconds and sampled tokens of ``better`` per those of ``worse``; None
            where ``worse`` cost nothing.
        verdict: by the rule.
    """

    claim: Claim
    student: str
    pairs: int
    failed: int
    planned: int
    seeds: Interval | None = None
    questions: Interval | None = None
    p_value: float = 1.0
    seconds: float | None = None
    tokens: float | None = None
    verdict: Verdict = Verdict.NOT_RUN

    @property
    def words(self) -> str:
        """The verdict as it is printed, with its reason where it needs one."""
        said = words(self.claim, self.verdict)
        if self.pairs and self.pairs + self.failed < self.planned:
            return f"{said} ({self.pairs} of {self.planned} seeds so far)"
        if self.failed:
            said += f" ({self.failed} of {self.planned} seeds failed)"
        if self.verdict is Verdict.NOT_REPRODUCED and self.seeds and self.questions:
            same = self.seeds.within(MARGIN) and self.questions.within(MARGIN)
            said += f" (within ±{MARGIN:g})" if same else " (the opposite)"
        return said


def by_name(rows: Iterable[Row], student: str) -> dict[str, dict[int, Row]]:
    """A student's rows by name and seed."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.student == student:
            found.setdefault(row.name, {})[row.seed] = row
    return found


def findings(experiment: Experiment, rows: Sequence[Row]) -> list[Finding]:
    """Every claim that the experiment decides, student by student.

    The claims about one part of an experiment (the headline has one part) on one student are a
    family for Holm; those without a full set of seeds count in it with a p-value of 1.

    Raises:
        UserError: two rows that are compared were asked different questions.
    """
    claims = [claim for claim in CLAIMS if claim.experiment == experiment.name]
    found = []
    for student in experiment.students:
        group = by_name(rows, student)
        families: dict[str, list[Finding]] = {}
        for claim in claims:
            compared = _compare(claim, student, experiment, group)
            families.setdefault(_part(claim, experiment), []).append(compared)
        for family in families.values():
            adjusted = holm([each.p_value for each in family])
            found += [_judged(each, p) for each, p in zip(family, adjusted, strict=True)]
    return found


def _part(claim: Claim, experiment: Experiment) -> str:
    """The part of the run that is changed: of the two, not the experiment's first."""
    changed = claim.worse if claim.better == experiment.runs[0].name else claim.better
    return next((spec.part for spec in experiment.runs if spec.name == changed), "")


def _judged(found: Finding, p_value: float) -> Finding:
    complete = found.pairs + found.failed == found.planned
    decidable = complete and found.pairs >= max(2, found.planned - 1)
    if found.seeds is None or found.questions is None:
        state = Verdict.NOT_DECIDED if found.failed else Verdict.NOT_RUN
        return replace(found, p_value=1.0, verdict=state)
    if not decidable:
        return replace(found, p_value=1.0, verdict=Verdict.NOT_DECIDED)
    judged = verdict(found.claim, found.seeds, found.questions, p_value)
    return replace(found, p_value=p_value, verdict=judged)


def _compare(claim: Claim, student: str, experiment: Experiment, group: Group) -> Finding:
    """The differences of one claim; the p-value is not adjusted yet."""
    columns = experiment.benchmarks
    pairs: list[tuple[Row, Row]] = []
    failed = 0
    for seed in experiment.seeds:
        better, worse = (_row(group, name, seed) for name in (claim.better, claim.worse))
        if better is None or worse is None:
            continue
        if better.failure or worse.failure:
            failed += 1
        else:
            pairs.append((better, worse))
    found = Finding(claim, student, len(pairs), failed, len(experiment.seeds))
    if not pairs:
        return found
    differences = [_mean(better, columns) - _mean(worse, columns) for better, worse in pairs]
    complete = len(pairs) + failed == len(experiment.seeds)
    return replace(
        found,
        seeds=seed_interval(differences),
        questions=question_interval(_by_question(pairs, columns)),
        p_value=seed_p_value(differences, -MARGIN if claim.reaches else 0.0) if complete else 1.0,
        seconds=_ratio([(b.cost.seconds, w.cost.seconds) for b, w in pairs]),
        tokens=_ratio([(b.cost.sampled_tokens, w.cost.sampled_tokens) for b, w in pairs]),
    )


def _row(group: Group, name: str, seed: int) -> Row | None:
    """The row of a seed; a model that is not trained has one row for all seeds."""
    rows = group.get(name, {})
    only = rows.get(0)
    return only if only is not None and only.model else rows.get(seed)


def _mean(row: Row, columns: Sequence[str]) -> float:
    mean = row.mean(columns)
    if mean is None:
        raise UserError(f"{row.student}/{row.name}-{row.seed} lacks a benchmark; run it again")
    return mean


def _by_question(pairs: Sequence[tuple[Row, Row]], columns: Sequence[str]) -> dict[str, Array]:
    """For each benchmark, each question's difference in points, averaged over seeds."""
    found = {}
    for column in columns:
        both = [(better.outcomes[column], worse.outcomes[column]) for better, worse in pairs]
        if len({each.questions for pair in both for each in pair}) > 1:
            raise UserError(f"rows were asked different questions of {column}; run them again")
        values = [np.asarray(b.values) - np.asarray(w.values) for b, w in both]
        found[column] = 100.0 * np.mean(values, axis=0)
    return found


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    better, worse = (statistics.fmean(values) for values in zip(*pairs, strict=True))
    return better / worse if worse else None
