"""Compare a ledger with a baseline: one verdict for each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from rilbench.check.baseline import Baseline, Entry
from rilbench.check.metrics import LOWER_IS_BETTER, MEAN, TRAINING, Measured, Metric, provenance
from rilbench.check.thresholds import Bound
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger, Run, Score, newest_first
from rilbench.ledger.queries import outcome_hashes, outcomes

State = Literal["passed", "failed", "not measured", "not comparable", "no bound", "skipped"]
OPEN: frozenset[State] = frozenset({"passed", "no bound", "skipped"})
"""All other states close the gate: what was not measured has not passed.

"no bound": the values of the calibration spread so much that no score could fail.
"""

NOT_EVALUATED = "the ledger has no evaluation of this model"
_ROUNDING = 1e-9
_SHOWN = 5
"""Questions that a verdict names."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one metric.

    Attributes:
        entry: the label of its baseline entry.
        metric: its name.
        state: passed, failed, or why there is no comparison.
        value: the measured value.
        limit: the bound.
        usual: the mean of the calibration.
        why: the reason in words; empty if it passed.
    """

    entry: str
    metric: str
    state: State
    value: float | None
    limit: float
    usual: float
    why: str = ""

    @property
    def open(self) -> bool:
        """It leaves the gate open."""
        return self.state in OPEN

    @property
    def lower_is_better(self) -> bool:
        """The limit is an upper one."""
        return self.metric in LOWER_IS_BETTER


def select_entries(entries: Sequence[Entry], only: Sequence[str]) -> list[Entry]:
    """Return the entries whose label contains one of the parts ``only``; all if there are none.

    Raises:
        UserError: a part is in no label.
    """
    labels = [entry.label for entry in entries]
    for part in only:
        if not any(part in label for label in labels):
            known = ", ".join(labels) or "none"
            raise UserError(f"no entry is called {part!r}; choose from: {known}")
    return [e for e in entries if not only or any(part in e.label for part in only)]


def check_ledger(ledger: Ledger, baseline: Baseline, only: Sequence[str] = ()) -> list[Verdict]:
    """Compare the newest evaluation of each entry's models.

    Responses are not read; outcomes are, of models without seeds, where they have changed.

    Args:
        ledger: evaluations and runs.
        baseline: the bounds.
        only: parts of the labels of the entries to compare; none for all.

    Raises:
        UserError: the ledger has no evaluation, none on a suite of the entries, or a damaged one,
            which might be the newest.
    """
    entries = select_entries(baseline.entries, only)
    evaluations = ledger.evaluations(strict=True)
    if not evaluations:
        raise UserError(f"{ledger.path} has no evaluation to check; first: rilbench eval")
    suites = {evaluation.suite for evaluation in evaluations}
    wanted = sorted({entry.suite for entry in entries})
    if not suites & set(wanted):
        raise UserError(
            f"the baseline is for the suite {', '.join(wanted)}, {ledger.path} has evaluations of "
            f"{', '.join(sorted(suites))} alone; give another --baseline or another --db"
        )
    bounds = baseline.bounds()
    runs = ledger.runs()
    verdicts = []
    for entry in entries:
        matching = newest_first(filter(entry.matches, evaluations), entry.benchmarks)
        newest = next(iter(with_runs(matching[:1], runs)), None)
        if newest is not None and entry.single:
            newest = with_changed_outcomes(newest, entry, ledger)
        verdicts += check_entry(entry, bounds[entry.label], newest)
    return verdicts


def with_outcomes(measured: Measured, ledger: Ledger) -> Measured:
    """Return it with the outcome of each question, from the ledger."""
    number = measured.evaluation.id or 0
    return replace(measured, outcomes=outcomes(ledger, number, measured.scores))


def with_changed_outcomes(measured: Measured, entry: Entry, ledger: Ledger) -> Measured:
    """Return it with the outcomes of the benchmarks that are not the calibration's.

    Equal hashes spare reading a large ledger, and the answers of the baseline.
    """
    number = measured.evaluation.id or 0
    hashes = outcome_hashes(ledger, number)
    changed = [m.name for m in entry.metrics if m.outcomes_hash != hashes.get(m.name, "")]
    return replace(measured, outcomes=outcomes(ledger, number, changed))


def with_runs(evaluations: Iterable[Evaluation], runs: Iterable[Run]) -> list[Measured]:
    """Pair each evaluation with the run of its model's name and recipe, the newest if several."""
    by_name: dict[tuple[str, str | None], Run] = {
        (run.name, run.recipe_fingerprint): run for run in sorted(runs, key=lambda run: run.created)
    }
    return [Measured(e, by_name.get((e.run or "", e.recipe_fingerprint))) for e in evaluations]


def check_entry(
    entry: Entry,
    bounds: Mapping[str, Bound],
    measured: Measured | None,
    *,
    scores_alone: bool = False,
) -> list[Verdict]:
    """Compare one evaluation with an entry.

    Args:
        entry: the baseline of the model.
        bounds: the entry's bounds, by metric.
        measured: the evaluation; None if the ledger has none.
        scores_alone: skip the training metrics if the ledger does not have the run.
    """
    differences = _differences(entry, measured) if measured is not None else {}
    verdicts = []
    for metric in entry.metrics:
        limit, value = bounds[metric.name], None
        state: State = "not measured"
        why = NOT_EVALUATED
        if measured is not None:
            value = measured.value(metric.name, entry.benchmarks)
            if metric.name in differences:
                state, why = "not comparable", differences[metric.name]
            elif value is not None:
                state, why = _judged(entry, metric, limit, value, measured)
            elif scores_alone and metric.name in TRAINING and measured.run is None:
                state, why = "skipped", "its training run is not in this ledger"
            else:
                why = _unmeasured(entry, metric, measured)
        usual = metric.usual
        verdicts.append(Verdict(entry.label, metric.name, state, value, limit.value, usual, why))
    return verdicts


def _judged(
    entry: Entry, metric: Metric, bound: Bound, value: float, measured: Measured
) -> tuple[State, str]:
    """Return the state of a metric that was measured, and why it is not passed."""
    limit, usual = bound.value, metric.usual
    if metric.lower_is_better:
        if value > limit:
            return "failed", f"{value:.3f} is above {limit:.3f}, {value / usual:.2f} of the usual"
        return "passed", ""
    if metric.name not in TRAINING and limit <= 0:
        return "no bound", "the calibration spreads too much for one, or is too near 0"
    if bound.worse is not None:
        lost = _lost(entry, metric, measured)
        if sum(lost.values()) > bound.worse + _ROUNDING:
            names = ", ".join(islice(lost, _SHOWN)) + (", …" if len(lost) > _SHOWN else "")
            return "failed", (
                f"{len(lost)} answers are worse than the baseline's, and {bound.worse} may be "
                f"({names})"
            )
    if value < limit:
        return "failed", f"{value:.3f} is below {limit:.3f}, usual is {usual:.3f}"
    return "passed", ""


def _lost(entry: Entry, metric: Metric, measured: Measured) -> dict[str, float]:
    """Return what each question lost that is worse than in the baseline, by its id.

    For the mean, of all benchmarks. Empty where one side has no outcomes.
    """
    names = entry.benchmarks if metric.name == MEAN else [metric.name]
    lost = {}
    for benchmark in entry.metrics:
        now = measured.outcomes.get(benchmark.name, {})
        if benchmark.name in names and now:
            for question, score in benchmark.outcomes.items():
                if question in now and now[question] < score - _ROUNDING:
                    name = question if metric.name != MEAN else f"{benchmark.name}/{question}"
                    lost[name] = score - now[question]
    return lost


def _unmeasured(entry: Entry, metric: Metric, measured: Measured) -> str:
    """Return why a metric has no value."""
    if metric.name not in TRAINING:
        needed = entry.benchmarks if metric.name == MEAN else [metric.name]
        return measured.missing_score(needed)
    if measured.run is None:
        return "its training run is not in this ledger"
    return "its training run did not measure it"


def _differences(entry: Entry, measured: Measured) -> dict[str, str]:
    """Return, by metric, how the provenance of a score differs from the baseline's."""
    differences = {}
    for metric in entry.metrics:
        score = measured.scores.get(metric.name)
        if score is not None and (parts := differing_parts(metric.provenance, score)):
            now = provenance(score)
            words = (f"{part} {now[part]!r}, not {metric.provenance.get(part)!r}" for part in parts)
            differences[metric.name] = f"another {'; '.join(words)}"
    if differences:
        differences[MEAN] = f"as {', '.join(differences)}"
    return differences


def differing_parts(before: Mapping[str, str | None], score: Score) -> list[str]:
    """Return the names of the parts in which a score's provenance differs from ``before``."""
    return [name for name, value in provenance(score).items() if before.get(name) != value]


def problems(verdicts: Iterable[Verdict]) -> list[str]:
    """Return one line for each reason that closes the gate; unmeasured metrics share a line."""
    lines = []
    unmeasured: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.state == "not measured":
            unmeasured.setdefault((verdict.entry, verdict.why), []).append(verdict.metric)
        elif not verdict.open:
            lines.append(f"{verdict.entry}: {verdict.metric} {verdict.state}: {verdict.why}")
    for (entry, why), metrics in unmeasured.items():
        names = ", ".join(metrics) if len(metrics) <= 4 else f"{len(metrics)} metrics"
        lines.append(f"{entry}: {names} not measured: {why}")
    return lines
