"""The report's tables in Markdown, each made from rows alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from rilbench.lab.claims import paper_differences
from rilbench.lab.experiment import Experiment, RunSpec
from rilbench.lab.grid_choice import Tuned
from rilbench.lab.run_result import Row
from rilbench.lab.style_probe import Styles
from rilbench.lab.verdicts import Finding, Group, by_name
from rilbench.stats import Interval, seed_interval
from rilbench.train.health import MEANING, warnings

_COST = (
    *("sampled tokens", "teacher tokens", "trained tokens", "judge calls"),
    *("collected tokens", "CPU s"),
)
NONE = "-"
"""A cell without a value."""
_UNTRAINED = "untrained"
_EDGE = 3
"""Steps at the beginning and the end of a run whose mean the health table shows."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first ``texts`` columns are text and whose others are numbers."""
    lines = [head, [*["---"] * texts, *["---:"] * (len(head) - texts)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---- how values are written


def signed(value: float) -> str:
    """One decimal with its sign."""
    return f"{value:+.1f}"


def interval(found: Interval | None) -> str:
    """``low to high``; nothing for an interval without ends."""
    if found is None or math.isinf(found.low):
        return NONE
    return f"{signed(found.low)} to {signed(found.high)}"


def _score(found: Interval) -> str:
    if math.isinf(found.low):
        return f"{found.mean:.1f}"
    return f"{found.mean:.1f} ± {(found.high - found.low) / 2:.1f}"


def _count(value: float) -> str:
    return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value:.0f}"


def _ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.fmean(present) if present else None


# ---- claims


def claims_table(found: Sequence[Finding]) -> str:
    """What the paper claims and what the laboratory finds."""
    head = ("the paper claims", "source", "in the paper", "student", "the laboratory finds")
    more = (
        "over seeds, 95 %",
        "over questions, 95 %",
        "CPU time, ratio",
        "sampled tokens, ratio",
        "difference",
    )
    rows = [
        (
            each.claim.text,
            each.claim.source,
            _paper(each),
            each.student,
            f"**{each.words}**",
            NONE if each.seeds is None else signed(each.seeds.mean),
            interval(each.seeds),
            interval(each.questions),
            _ratio(each.seconds),
            _ratio(each.tokens),
        )
        for each in found
    ]
    return markdown((*head, more[-1], *more[:-1]), rows, texts=5)


def _paper(found: Finding) -> str:
    values = sorted(paper_differences(found.claim).values())
    if not values:
        return NONE
    if len(values) == 1:
        return signed(values[0])
    return f"{signed(values[0])} to {signed(values[-1])} ({len(values)} students)"


# ---- scores with their cost


def _names(experiment: Experiment) -> list[RunSpec]:
    return list({spec.name: spec for spec in experiment.runs}.values())


def _finished(group: Group, name: str) -> list[Row]:
    return [row for _, row in sorted(group.get(name, {}).items()) if not row.failure]


def scores_table(experiment: Experiment, rows: Sequence[Row], student: str) -> str:
    """Every run: mean with its interval over seeds, every benchmark, and what it cost."""
    group = by_name(rows, student)
    columns = experiment.benchmarks
    body = []
    for spec in _names(experiment):
        found = _finished(group, spec.name)
        if not found:
            body.append((spec.name, "0", "not run yet", *[NONE] * (len(columns) + len(_COST))))
            continue
        mean = seed_interval([row.mean(columns) or 0.0 for row in found])
        each = [f"{statistics.fmean(row.scores[c] for row in found):.1f}" for c in columns]
        body.append((spec.name, str(len(found)), _score(mean), *each, *_cost(found)))
    return markdown(("run", "seeds", "mean", *columns, *_COST), body)


def _cost(rows: Sequence[Row]) -> list[str]:
    if not rows[0].method:
        return [NONE] * len(_COST)
    figures: tuple[Callable[[Row], float], ...] = (
        lambda row: row.cost.sampled_tokens,
        lambda row: row.cost.teacher_tokens,
        lambda row: row.cost.trained_tokens,
        lambda row: row.cost.judge_calls,
        lambda row: row.cost.collected_tokens,
        lambda row: row.cost.seconds,
    )
    return [_count(statistics.fmean(figure(row) for row in rows)) for figure in figures]


def ablations_table(experiment: Experiment, rows: Sequence[Row], student: str) -> str:
    """Every run beside the full one: paired difference with its interval, scores, cost."""
    group = by_name(rows, student)
    columns = experiment.benchmarks
    reference = group.get(experiment.runs[0].name, {})
    body = []
    for spec in _names(experiment):
        found = _finished(group, spec.name)
        label = (spec.part or NONE, spec.name)
        if not found:
            body.append((*label, "0", "not run yet", *[NONE] * (len(columns) + 2 + len(_COST))))
            continue
        gaps = paired(found, reference, columns) if spec is not experiment.runs[0] else []
        gap = seed_interval(gaps) if gaps else None
        mean = seed_interval([row.mean(columns) or 0.0 for row in found])
        each = [f"{statistics.fmean(row.scores[c] for row in found):.1f}" for c in columns]
        shown = (NONE if gap is None else signed(gap.mean), interval(gap))
        body.append((*label, str(len(found)), _score(mean), *shown, *each, *_cost(found)))
    head = ("part", "run", "seeds", "mean", "minus full", "95 %", *columns, *_COST)
    return markdown(head, body, texts=2)


def paired(
    rows: Sequence[Row], reference: Mapping[int, Row], columns: Sequence[str]
) -> list[float]:
    """Differences of means from the reference of the same seed, where both finished."""
    gaps = []
    for row in rows:
        other = reference.get(row.seed)
        ours, theirs = row.mean(columns), other.mean(columns) if other else None
        if ours is not None and theirs is not None:
            gaps.append(ours - theirs)
    return gaps


# ---- teachers, health, grid, failures


def teachers_table(experiment: Experiment, rows: Sequence[Row]) -> str:
    """Teachers on the prompts of RIL (saved responses, by the judge) and on test (by the kit)."""
    body = []
    for student in experiment.students:
        group = by_name(rows, student)
        for spec in _names(experiment):
            if spec.name.startswith("teacher-") and spec.model:
                tests = _finished(group, spec.name)
                alone = _finished(group, f"ril-{spec.model}")
                steps = [v for row in alone for v in row.curves.get("answer_reward_teacher", ())]
                prompts, test = (
                    _mean(steps),
                    tests[0].mean(experiment.benchmarks) if tests else None,
                )
                shown = NONE if prompts is None else f"{100 * prompts:.1f}"
                body.append((spec.model, student, shown, NONE if test is None else f"{test:.1f}"))
    return markdown(("teacher", "with student", "RIL prompts", "test"), body, texts=2)


_HEALTH = (
    ("answer_reward_student", "answer reward"),
    ("similarity_reward_student", "similarity, student"),
    ("similarity_reward_teacher", "similarity, teacher"),
    ("discriminator_accuracy", "D accuracy"),
    ("kl", "KL"),
    ("tokens_student", "tokens"),
    ("entropy", "entropy"),
    ("groups_without_signal", "no signal"),
)


def health_table(experiment: Experiment, rows: Sequence[Row], student: str) -> str:
    """First and last steps of every run that has a loop, and its warnings."""
    group = by_name(rows, student)
    body = []
    for spec in _names(experiment):
        found = [row for row in group.get(spec.name, {}).values() if row.curves]
        if found:
            cells = [_ends([row.curves.get(name, ()) for row in found]) for name, _ in _HEALTH]
            body.append((spec.name, str(len(found)), *cells, _warnings(found)))
    head = ("run", "seeds", *[words for _, words in _HEALTH], "warnings: steps")
    return markdown(head, body) if body else "No run with a loop yet."


def _ends(curves: Sequence[Sequence[float | None]]) -> str:
    first = _mean(value for curve in curves for value in curve[:_EDGE])
    last = _mean(value for curve in curves for value in curve[-_EDGE:])
    return NONE if first is None or last is None else f"{first:.2f} → {last:.2f}"


def _warnings(rows: Sequence[Row]) -> str:
    named = [name for row in rows for step in row.curves.get("warnings", ()) for name in step or ()]
    counts = {name: named.count(name) for name in sorted(set(named))}
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "none"


def warnings_table(experiment: Experiment, rows: Sequence[Row]) -> str:
    """What became of the grid's runs with a loop in which each warning was given, and of the rest.

    Warnings are computed anew from the curves, with today's thresholds. The change is the mean of
    the benchmarks minus that of the untrained student, on dev.
    """
    changes: dict[str, list[float]] = {name: [] for name in (*MEANING, "none of them")}
    for row in rows:
        start = by_name(rows, row.student).get(_UNTRAINED, {}).get(0)
        first = start.mean(experiment.benchmarks) if start else None
        last = row.mean(experiment.benchmarks)
        if row.curves and first is not None and last is not None:
            for name in warned(row) or ["none of them"]:
                changes[name].append(last - first)
    body = [
        (
            name,
            str(len(found)),
            _range(found, min),
            _range(found, statistics.fmean),
            _range(found, max),
        )
        for name, found in changes.items()
    ]
    return markdown(("warning", "runs", "lowest change", "mean change", "highest change"), body)


def warned(row: Row) -> list[str]:
    """The warnings that were given in any step of a run."""
    steps = len(row.curves["answer_reward_student"])
    history = [{name: values[i] for name, values in row.curves.items()} for i in range(steps)]
    found = {name for end in range(steps) for name in warnings(history[: end + 1])}
    return [name for name in MEANING if name in found]


def _range(values: Sequence[float], of: Callable[[Sequence[float]], float]) -> str:
    return signed(of(values)) if values else NONE


def grid_table(tuned: Tuned) -> str:
    """The grid's choice."""
    body = []
    for student, entries in sorted(tuned.items()):
        for entry, chosen in sorted(entries.items()):
            settings = ", ".join(f"{k} {v:g}" for k, v in chosen["settings"].items())
            cells = [mean for mean in chosen["cells"].values() if mean is not None]
            best = NONE if chosen["mean"] is None else f"{chosen['mean']:.1f}"
            spread = f"{min(cells):.1f} to {max(cells):.1f}" if cells else NONE
            body.append((entry, student, settings, best, spread))
    head = ("method", "student", "chosen", "mean on dev", "all cells")
    return markdown(head, body, texts=3) if body else "Not run yet."


def longer_table(experiment: Experiment, rows: Sequence[Row], student: str, parts: int = 6) -> str:
    """The student's answer reward in each part of a run, and its benchmarks at the end."""
    group = by_name(rows, student)
    length = experiment.steps // parts
    body = []
    for spec in _names(experiment):
        for row in _finished(group, spec.name):
            curve = row.curves.get("answer_reward_student", ())
            means = [_mean(curve[i * length : (i + 1) * length]) for i in range(parts)]
            cells = [NONE if mean is None else f"{mean:.2f}" for mean in means]
            body.append(
                (spec.name, *cells, f"{row.mean(experiment.benchmarks):.1f}", *_cost([row]))
            )
    steps = [f"to step {(i + 1) * length}" for i in range(parts)]
    return markdown(("run", *steps, "mean on dev", *_COST), body) if body else "Not run yet."


def styles_table(styles: Styles) -> str:
    """What the worked style is worth to each model."""
    names = ("worked_share", "right", "opened_right", "digits", "opened_digits")
    body = [(model, *[f"{100 * found[n]:.0f}" for n in names]) for model, found in styles.items()]
    head = ("worked by itself", "right", "right, opened", "digits", "digits, opened")
    return markdown(("model", *head), body) if body else "Not measured yet."


def failures_table(rows: Sequence[Row]) -> str:
    """Runs that stopped for good."""
    body = [
        (f"{row.experiment}/{row.student}/{row.name}-{row.seed}", str(row.failure.step), why)
        for row in rows
        if row.failure
        for why in [row.failure.message.replace("|", "/")]
    ]
    return markdown(("run", "step", "why"), body, texts=3) if body else "None."
