"""The report's tables in Markdown, each made from run results alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from rilbench.lab.claims import ALPHA, QUESTIONS, Claim, paper_differences
from rilbench.lab.experiment import Experiment, RunSpec
from rilbench.lab.grid_choice import Tuned
from rilbench.lab.mechanisms import MEASURES, Mechanisms
from rilbench.lab.regimes import REGIMES
from rilbench.lab.run_result import RunResult
from rilbench.lab.verdicts import ClaimResult, Controls, ResultsByName, by_name
from rilbench.stats import Interval, prediction_interval, seed_interval, seeds_needed
from rilbench.train.health import MEANING, warnings

EFFECT = 1.5
"""Points of the mean that the planned seeds should find with a chance of 80 %."""
NONE = "-"
"""A cell without a value."""
_COST = {
    "sampled tokens": "sampled_tokens",
    "teacher tokens": "teacher_tokens",
    "trained tokens": "trained_tokens",
    "judge calls": "judge_calls",
    "collected tokens": "collected_tokens",
    "CPU s": "seconds",
}
"""Heading → attribute of `RunCost`."""
_UNTRAINED = "untrained"
_EDGE = 3
"""Steps at the beginning and the end of a run whose mean the health table shows."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """Return a table whose first ``texts`` columns are text and whose others are numbers."""
    lines = [head, [*["---"] * texts, *["---:"] * (len(head) - texts)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---- how values are written


def signed(value: float | None) -> str:
    """One decimal with its sign."""
    return NONE if value is None else f"{value:+.1f}"


def interval_text(interval: Interval | None) -> str:
    """``low to high``; nothing for an interval without ends."""
    if interval is None or math.isinf(interval.low):
        return NONE
    return f"{signed(interval.low)} to {signed(interval.high)}"


def decimals(value: float | None, digits: int) -> str:
    """So many decimals; nothing for no value."""
    return NONE if value is None else f"{value:.{digits}f}"


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None


# ---- claims


def claims_table(results: Sequence[ClaimResult]) -> str:
    """The paper's claims and the nano sandbox's results, one row each."""
    head = (
        *("claim", "source", "in the paper", "nano sandbox"),
        *("difference", "over seeds, 95 %", "over questions, 95 %", "would have seen"),
        *("CPU time, ratio", "sampled tokens, ratio"),
    )
    rows = []
    for result in results:
        paper, number = paper_text(result.claim), len(paper_differences(result.claim))
        if number > 1:
            paper += f" ({number} students)"
        rows.append(
            (
                *(result.claim.text, result.claim.source, paper, f"**{result.text}**"),
                signed(None if result.seeds is None else result.seeds.mean),
                interval_text(result.seeds),
                interval_text(result.questions),
                decimals(result.detectable, 1),
                decimals(result.seconds, 2),
                decimals(result.tokens, 2),
            )
        )
    return markdown(head, rows, texts=4)


def questions_table(results: Sequence[ClaimResult]) -> str:
    """A reader's first questions, one line each; `claims_table` has the intervals."""
    by_claim = {result.claim.text: result for result in results}
    rows = []
    for question, text in QUESTIONS.items():
        answer = by_claim[text]
        cell = NONE if answer.seeds is None else f"{signed(answer.seeds.mean)}, {answer.text}"
        rows.append((question, paper_text(answer.claim), answer.claim.regime, cell))
    return markdown(("question", "in the paper", "regime", "nano sandbox"), rows, texts=4)


def controls_table(controls: Mapping[str, Controls]) -> str:
    """Where a student starts, what can be gained there, and whether the regime counts."""
    rows = []
    for regime, found in controls.items():
        teachers = ", ".join(f"{name} {score:.1f}" for name, score in found.teachers.items())
        name, gain = found.rl or ("", None)
        rows.append(
            (
                *(
                    regime,
                    "yes" if found.passed else "no" if found.finished else "not run yet",
                    teachers,
                    name or NONE,
                ),
                f"{found.start:.1f}",
                *(signed(found.sft.mean if found.sft else None), interval_text(found.sft)),
                *(signed(gain.mean if gain else None), interval_text(gain)),
            )
        )
    head = (
        *("regime", "counts", "teachers", "best other method", "untrained"),
        *("SFT gains", "95 %", "best other gains", "95 %"),
    )
    return markdown(head, rows, texts=4) if rows else "Not run yet."


def power_table(experiment: Experiment, results: Sequence[RunResult], claims: int) -> str:
    """Spread of the paired differences from RIL, and the seeds that `EFFECT` needs.

    Args:
        experiment: the pilot; its first run is RIL.
        results: its results.
        claims: of the largest family, for the strictest of Holm's tests.
    """
    rows = []
    for regime in experiment.regimes:
        grouped = by_name(results, regime)
        for spec in experiment.runs[1:]:
            runs = finished(grouped, spec.name)
            ril = grouped.get(experiment.runs[0].name, {})
            gaps = [-gap for gap in paired_differences(runs, ril, experiment.benchmarks)]
            if len(gaps) > 1:
                sd = statistics.stdev(gaps)
                needed = [seeds_needed(sd, EFFECT, level=1 - ALPHA / n) for n in (1, claims)]
                rows.append(
                    (
                        f"RIL minus {spec.name}",
                        regime,
                        str(len(gaps)),
                        signed(statistics.fmean(gaps)),
                        f"{sd:.2f}",
                        *map(str, needed),
                    )
                )
    head = ("difference", "regime", "seeds", "mean", "sd", "seeds for one claim", "for the family")
    return markdown(head, rows, texts=2) if rows else "Not run yet."


def paper_text(claim: Claim) -> str:
    """The claim's difference in the paper, from the lowest to the highest of its students."""
    values = sorted(paper_differences(claim).values())
    if not values:
        return NONE
    return signed(values[0]) + (f" to {signed(values[-1])}" if len(values) > 1 else "")


# ---- scores with their cost


def _specs(experiment: Experiment, regime: str) -> list[RunSpec]:
    """The runs that the experiment has in a regime."""
    return [spec for spec in experiment.runs if regime in (spec.only or experiment.regimes)]


def finished(grouped: ResultsByName, name: str) -> list[RunResult]:
    """Return a run's results that did not fail, by seed."""
    return [result for _, result in sorted(grouped.get(name, {}).items()) if not result.failure]


def scores_table(experiment: Experiment, results: Sequence[RunResult], regime: str) -> str:
    """Every run: mean with its interval over seeds, every benchmark, and its cost."""
    grouped = by_name(results, regime)
    benchmarks = experiment.benchmarks
    rows = [
        (spec.name, *_scores(finished(grouped, spec.name), benchmarks, ()))
        for spec in _specs(experiment, regime)
    ]
    return markdown(("run", "seeds", "mean", *benchmarks, *_COST), rows)


def ablations_table(experiment: Experiment, results: Sequence[RunResult], regime: str) -> str:
    """Every run beside the full one: paired difference with its interval, scores, cost."""
    grouped = by_name(results, regime)
    benchmarks = experiment.benchmarks
    full = experiment.runs[0]
    rows = []
    for spec in _specs(experiment, regime):
        runs = finished(grouped, spec.name)
        gaps = []
        if spec is not full:
            gaps = paired_differences(runs, grouped.get(full.name, {}), benchmarks)
        gap = seed_interval(gaps) if gaps else None
        shown = (signed(None if gap is None else gap.mean), interval_text(gap))
        rows.append((spec.part or NONE, spec.name, *_scores(runs, benchmarks, shown)))
    head = ("part", "run", "seeds", "mean", "minus full", "95 %", *benchmarks, *_COST)
    return markdown(head, rows, texts=2)


def _scores(
    runs: Sequence[RunResult], benchmarks: Sequence[str], after_mean: Sequence[str]
) -> tuple[str, ...]:
    """Number of seeds, mean, ``after_mean``, the benchmarks and the cost of one run."""
    if not runs:
        empty = len(after_mean) + len(benchmarks) + len(_COST)
        return ("0", "not run yet", *[NONE] * empty)
    over_seeds = seed_interval([run.mean(benchmarks) or 0.0 for run in runs])
    mean = f"{over_seeds.mean:.1f}"
    if not math.isinf(over_seeds.low):
        mean += f" ± {(over_seeds.high - over_seeds.low) / 2:.1f}"
    scores = [f"{statistics.fmean(run.scores[b] for run in runs):.1f}" for b in benchmarks]
    return (str(len(runs)), mean, *after_mean, *scores, *_cost(runs))


def _cost(runs: Sequence[RunResult]) -> list[str]:
    if not runs[0].method:
        return [NONE] * len(_COST)
    means = [statistics.fmean(getattr(run.cost, name) for run in runs) for name in _COST.values()]
    return [f"{mean / 1000:.0f}k" if mean >= 10_000 else f"{mean:.0f}" for mean in means]


def paired_differences(
    runs: Sequence[RunResult], reference: Mapping[int, RunResult], benchmarks: Sequence[str]
) -> list[float]:
    """Return differences of means from the reference of the same seed, where both finished."""
    gaps = []
    for run in runs:
        other = reference.get(run.seed)
        ours, theirs = run.mean(benchmarks), other.mean(benchmarks) if other else None
        if ours is not None and theirs is not None:
            gaps.append(ours - theirs)
    return gaps


# ---- health, grid, failures


_HEALTH = {
    "answer_reward_student": "answer reward",
    "similarity_reward_student": "similarity, student",
    "similarity_reward_teacher": "similarity, teacher",
    "discriminator_accuracy": "D accuracy",
    "kl": "KL",
    "tokens_student": "tokens",
    "entropy": "entropy",
    "groups_without_signal": "no signal",
}


def health_table(experiment: Experiment, results: Sequence[RunResult], regime: str) -> str:
    """First and last steps of every run that has a loop, and its warnings."""
    grouped = by_name(results, regime)
    rows = []
    for spec in _specs(experiment, regime):
        runs = [run for run in grouped.get(spec.name, {}).values() if run.curves]
        if not runs:
            continue
        cells = []
        for metric in _HEALTH:
            curves = [run.curves.get(metric, ()) for run in runs]
            first = _mean(value for curve in curves for value in curve[:_EDGE])
            last = _mean(value for curve in curves for value in curve[-_EDGE:])
            cells.append(NONE if first is None else f"{first:.2f} → {last:.2f}")
        given = [n for run in runs for step in run.curves.get("warnings", ()) for n in step or ()]
        counts = [f"{name}: {given.count(name)}" for name in sorted(set(given))]
        rows.append((spec.name, str(len(runs)), *cells, ", ".join(counts) or "none"))
    head = ("run", "seeds", *_HEALTH.values(), "warnings: steps")
    return markdown(head, rows) if rows else "No run with a loop yet."


def warnings_table(experiment: Experiment, results: Sequence[RunResult]) -> str:
    """Change of the grid's runs in which each warning was given, and of the other runs.

    Warnings are computed again from the curves, with today's thresholds. The change is the mean of
    the benchmarks minus that of the untrained student, on dev.
    """
    changes: dict[str, list[float]] = {name: [] for name in (*MEANING, "none of them")}
    for result in results:
        start = by_name(results, result.regime).get(_UNTRAINED, {}).get(0)
        first = start.mean(experiment.benchmarks) if start else None
        last = result.mean(experiment.benchmarks)
        if result.curves and first is not None and last is not None:
            for name in warnings_given(result) or ["none of them"]:
                changes[name].append(last - first)
    rows = [
        (
            name,
            str(len(values)),
            signed(min(values, default=None)),
            signed(_mean(values)),
            signed(max(values, default=None)),
        )
        for name, values in changes.items()
    ]
    return markdown(("warning", "runs", "lowest change", "mean change", "highest change"), rows)


def warnings_given(result: RunResult) -> list[str]:
    """Return the warnings that were given in any step of a run."""
    steps = len(result.curves["answer_reward_student"])
    history = [{name: values[i] for name, values in result.curves.items()} for i in range(steps)]
    given = {name for end in range(steps) for name in warnings(history[: end + 1])}
    return [name for name in MEANING if name in given]


def grid_table(tuned: Tuned) -> str:
    """The grid's choice."""
    rows = []
    for regime, entries in sorted(tuned.items()):
        for entry, chosen in sorted(entries.items()):
            settings = ", ".join(f"{k} {v:g}" for k, v in chosen["settings"].items())
            cells = [mean for mean in chosen["cells"].values() if mean is not None]
            spread = f"{min(cells):.1f} to {max(cells):.1f}" if cells else NONE
            rows.append((entry, regime, settings, decimals(chosen["mean"], 1), spread))
    head = ("method", "regime", "chosen", "mean on dev", "all cells")
    return markdown(head, rows, texts=3) if rows else "Not run yet."


def engines_table(
    fast: tuple[Experiment, Sequence[RunResult]], verl: tuple[Experiment, Sequence[RunResult]]
) -> str:
    """Scores through verl beside the prediction interval of the fast engine's."""
    rows = []
    for regime in verl[0].regimes:
        ours, theirs = (by_name(results, regime) for _, results in (fast, verl))
        for spec in _specs(verl[0], regime):
            means = [
                [mean for run in finished(grouped, spec.name) if (mean := run.mean(benchmarks))]
                for grouped, benchmarks in (
                    (ours, fast[0].benchmarks),
                    (theirs, verl[0].benchmarks),
                )
            ]
            if means[1] and len(means[0]) > 1:
                expected = prediction_interval(means[0])
                inside = sum(expected.low <= mean <= expected.high for mean in means[1])
                rows.append(
                    (
                        *(regime, spec.name, ", ".join(f"{mean:.1f}" for mean in means[1])),
                        f"{expected.low:.1f} to {expected.high:.1f}",
                        f"{inside} of {len(means[1])}",
                    )
                )
    head = ("regime", "run", "through verl", "expected", "inside")
    return markdown(head, rows, texts=4) if rows else "Not run yet."


def mechanisms_table(mechanisms: Mechanisms) -> str:
    """Each measure of the first three and the last three steps."""
    rows = []
    for regime, runs in mechanisms.items():
        for run, values in runs.items():
            cells = []
            for name in MEASURES:
                first, last = _mean(values[name][:_EDGE]), _mean(values[name][-_EDGE:])
                has_it = run == "ril" or not name.startswith("similarity")
                shown = has_it and first is not None and last is not None
                cells.append(f"{first:.2f} → {last:.2f}" if shown else NONE)
            rows.append((regime, run, *cells))
    head = [name.replace("_", ", ") for name in MEASURES]
    return markdown(("regime", "run", *head), rows, texts=2)


def blind_benchmarks_table(
    regime: str, *experiments: tuple[Experiment, Sequence[RunResult]]
) -> str:
    """Means over the benchmarks that a regime's teachers answer without looking.

    Args:
        regime: one with such teachers.
        experiments: with the results to show.
    """
    blind = {name: made.blind for name, made in REGIMES[regime].teachers.items()}
    rows = []
    for experiment, results in experiments:
        grouped = by_name(results, regime)
        for spec in _specs(experiment, regime):
            if runs := finished(grouped, spec.name):
                means = [_mean(run.mean(names) for run in runs) for names in blind.values()]
                rows.append((spec.name, str(len(runs)), *(decimals(mean, 1) for mean in means)))
    head = ("run", "seeds", *(f"{name} is blind" for name in blind))
    return markdown(head, rows) if rows else "Not run yet."


def failures_table(results: Sequence[RunResult]) -> str:
    """Runs that stopped for good."""
    rows = [
        (
            f"{result.experiment}/{result.regime}/{result.name}-{result.seed}",
            str(result.failure.step),
            result.failure.message.replace("|", "/"),
        )
        for result in results
        if result.failure
    ]
    return markdown(("run", "step", "why"), rows, texts=3) if rows else "None."
