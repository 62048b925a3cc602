"""Everything that a report shows, gathered from the ledger and the runs' folders."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rilbench.data.rollout_groups import training_steps
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.report.charts import Chart, LegendEntry, bar_charts, curve_charts, curve_legend
from rilbench.report.escaping import MINUS, NOTHING, clean, label
from rilbench.report.page_json import RunSteps
from rilbench.report.points import points, signed_points
from rilbench.report.questions import QuestionSet, question_sets
from rilbench.report.scores import (
    MEAN,
    ScoreRow,
    benchmark_rank,
    model_label,
    paired_tests,
    score_columns,
    score_rows,
    score_rows_of_paper,
    suite_label,
)
from rilbench.report.selection import Subject, find_subjects, with_roles
from rilbench.table.paper_rows import same_name
from rilbench.train.health import MEANING, SHOWN_BY, Thresholds


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number of the summary; ``tone`` is "gain", "loss" or empty."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class BarCharts:
    """The bar charts of one suite and kit."""

    group: str
    charts: Sequence[Chart]


@dataclass(frozen=True, kw_only=True)
class EvaluationDetails:
    """The provenance of one evaluation: names and values, and a line for each benchmark."""

    title: str
    role: str
    lines: Sequence[tuple[str, str]]
    data: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """One training run's recipe and warnings."""

    name: str
    lines: Sequence[tuple[str, str]]
    yaml: str
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything on the page. Texts are clean, but not escaped: see `rilbench.report.escaping`."""

    title: str
    subtitle: str
    facts: Sequence[Fact]
    columns: Sequence[str]
    """The columns of the score table."""
    rows: Sequence[ScoreRow]
    paper: Sequence[ScoreRow]
    near: str
    """The paper's student that the measured ones are compared with."""
    published: bool
    """Some measured row is on the published benchmarks: the paper's scores are shown beside it."""
    bars: Sequence[BarCharts]
    curves: Sequence[Chart]
    legend: Sequence[LegendEntry]
    recipes: Sequence[RunDetails]
    sources: Sequence[EvaluationDetails]
    sets: Sequence[QuestionSet] = field(default=(), repr=False)
    steps: Sequence[RunSteps] = field(default=(), repr=False)


def gather(ledger: Ledger, names: Sequence[str], teachers: Sequence[str] = ()) -> ReportData:
    """Gather a report; see `find_subjects` for its arguments.

    Raises:
        UserError: a name matches nothing, or several runs or models.
    """
    subjects = find_subjects(ledger, names, teachers)
    report = gather_scores(ledger, subjects)
    return replace(
        report, sets=question_sets(ledger, subjects, report.rows), steps=recorded_steps(subjects)
    )


def recorded_steps(subjects: Sequence[Subject]) -> list[RunSteps]:
    """Return the first and the last recorded training step of each run."""
    steps = []
    for subject in subjects:
        if subject.run is not None and subject.folder is not None:
            recorded = training_steps(subject.folder, subject.run.recipe_yaml)
            if recorded:
                steps.append(RunSteps(run=subject.run.name, steps=tuple(recorded)))
    return steps


def gather_scores(ledger: Ledger, subjects: Sequence[Subject]) -> ReportData:
    """Gather a report without its questions and training groups, which take longer."""
    rows = score_rows(ledger, subjects)
    published = not rows or any(row.suite == "paper" for row in rows)
    paper = score_rows_of_paper(ledger, levels=published)
    near = _nearest_student(subjects, paper)
    runs = [subject.run for subject in subjects if subject.run is not None]
    colour = {number: row.colour for row in rows for number in row.evaluations}
    colours = {
        subject.run.path: colour[subject.reported[0].id or 0]
        for subject in subjects
        if subject.run is not None and subject.reported
    }
    return ReportData(
        title=_title(subjects),
        subtitle=_subtitle(subjects),
        facts=_facts(ledger, subjects, rows),
        columns=score_columns(rows),
        rows=rows,
        paper=paper,
        near=near,
        published=published,
        bars=_bars(rows, [row for row in paper if row.group == near], subjects),
        curves=curve_charts(runs, colours),
        legend=curve_legend(runs, colours),
        recipes=[_run_details(run) for run in runs],
        sources=_sources(subjects),
    )


def _title(subjects: Sequence[Subject]) -> str:
    names = [subject.name for subject in subjects]
    more = [f"and {len(names) - 3} more"] if len(names) > 4 else []
    return label(", ".join([*names[: 3 if more else None], *more]))


def _subtitle(subjects: Sequence[Subject]) -> str:
    if len(subjects) > 1:
        return f"{len(subjects)} side by side"
    run = subjects[0].run
    if run is None:
        return f"an evaluation of {label(subjects[0].reported[0].path)}"
    parts = [f"{run.student} trained by {run.method}"]
    parts += [f"teachers: {run.teacher}"] if run.teacher not in ("", "none") else []
    parts += [f"seed {run.seed}"] if run.seed is not None else []
    return label(", ".join(parts))


def _nearest_student(subjects: Sequence[Subject], paper: Sequence[ScoreRow]) -> str:
    """Return the paper's student of the same name, else its first, as in the paper."""
    students = list(dict.fromkeys(row.group for row in paper))
    measured = {same_name(e.student) for subject in subjects for e in subject.reported}
    measured |= {same_name(subject.run.student) for subject in subjects if subject.run}
    return next((name for name in students if same_name(name) in measured), students[0])


def _bars(
    rows: Sequence[ScoreRow], paper: Sequence[ScoreRow], subjects: Sequence[Subject]
) -> list[BarCharts]:
    """Return the bar charts, with the paper's untrained student and its RIL by these teachers."""
    teachers = {evaluation.teacher for subject in subjects for evaluation in subject.reported}
    teachers |= {subject.run.teacher for subject in subjects if subject.run}
    wanted = ("base", *(f"RIL {teacher}" for teacher in teachers))
    beside = [row for row in paper if row.label in wanted]
    groups: dict[str, list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    # Of stand-ins, changes alone are comparable with the paper's.
    changes = [_change_only(row) for row in beside]
    return [
        BarCharts(
            group=group,
            charts=bar_charts(own, beside if own[0].suite == "paper" else changes),
        )
        for group, own in groups.items()
    ]


def _change_only(row: ScoreRow) -> ScoreRow:
    cells = {name: replace(cell, value=None) for name, cell in row.cells.items()}
    return replace(row, cells=cells)


def _facts(ledger: Ledger, subjects: Sequence[Subject], rows: Sequence[ScoreRow]) -> list[Fact]:
    if len(subjects) > 1:
        return [_mean_score(row, row.label) for row in rows if row.role != "teacher"]
    facts = [_mean_score(r, "Mean score") for r in rows if r.role in ("base", "after")][:1]
    facts += _change(ledger, subjects[0])
    run = subjects[0].run
    return [*facts, *(_effort(run) if run else ())]


def _mean_score(row: ScoreRow, name: str) -> Fact:
    cell = row.cells[MEAN]
    if cell.value is None:
        return Fact(label=name, value=NOTHING, note=row.no_mean)
    interval = (
        "" if cell.low is None else f"95 % interval {points(cell.low)} to {points(cell.high)}"
    )
    change = "" if cell.difference is None else f"{signed_points(cell.difference)} from the start"
    return Fact(label=name, value=points(cell.value), note=interval or change)


def _change(ledger: Ledger, subject: Subject) -> list[Fact]:
    """Return the change by training, from the paired test of the first evaluation and its start."""
    after = subject.reported[0] if subject.reported else None
    starts = [e for e in subject.before if after and (e.suite, e.kit) == (after.suite, after.kit)]
    tests = paired_tests(ledger, starts[0], after) if starts and after else {}
    comparable = [t for t in tests.values() if not t.unlike and not t.incomplete]
    mean = tests.get(MEAN) or (comparable[0] if len(comparable) == len(tests) == 1 else None)
    if mean is None:  # One benchmark of several is not the change.
        return []
    change = mean.difference
    ends = f"95 % interval {signed_points(change.low)} to {signed_points(change.high)}"
    tone = {"better": "gain", "worse": "loss"}.get(mean.verdict, "")
    moved = f"+{mean.gained:,} {MINUS}{mean.lost:,}"
    return [
        Fact(label="Change from the start", value=signed_points(change.mean), note=ends, tone=tone),
        Fact(label="Questions gained, lost", value=moved, note=f"of {mean.questions:,}"),
    ]


def _effort(run: Run) -> list[Fact]:
    summary = run.metrics
    facts = []
    if summary.get("steps"):
        seconds = summary.get("step_seconds")
        note = f"{seconds:.1f} s each, the median" if seconds else ""
        facts.append(Fact(label="Steps", value=f"{summary['steps']:,}", note=note))
    if summary.get("trained_tokens"):
        calls = summary.get("judge_calls")
        note = f"{calls:,} judge calls" if calls else ""
        tokens = f"{summary['trained_tokens']:,}"
        facts.append(Fact(label="Tokens trained on", value=tokens, note=note))
    return facts


def _run_details(run: Run) -> RunDetails:
    memory = run.metrics.get("memory_gb")
    values = {
        "status": run.status,
        "folder": run.path,
        "started": run.created,
        "finished": run.finished,
        "recipe": run.recipe_fingerprint,
        "family": run.family,
        "peak memory": f"{memory:.1f} GB" if memory else "",
    }
    return RunDetails(
        name=label(run.name),
        lines=[(name, label(str(value))) for name, value in values.items() if value],
        yaml=clean(run.recipe_yaml),
        warnings=_warnings(run),
    )


def _warnings(run: Run) -> list[str]:
    """Return a line for each kind of warning: when, what it means, and what the metrics did."""
    steps: dict[str, list[int]] = {}
    for step, texts in enumerate(run.curves.get("warnings", ()), start=1):
        for text in texts if isinstance(texts, list) else []:
            steps.setdefault(str(text), []).append(step)
    return [
        "; ".join(
            part
            for part in (
                f"{label(text)} in {len(when)} step{'s'[: len(when) - 1]}"
                + f" ({when[0]}{f' to {when[-1]}' if when[1:] else ''})",
                MEANING.get(text, ""),
                *(_course(run, name, when[-1]) for name in SHOWN_BY.get(text, ())),
            )
            if part
        )
        for text, when in steps.items()
    ]


def _course(run: Run, name: str, step: int) -> str:
    """Say what a metric was in the first steps and in those up to a step, as the warnings do."""
    values = [float(v) for v in run.curves.get(name, ())[:step] if isinstance(v, (int, float))]
    window = Thresholds().window
    if not values:
        return ""
    start, now = (statistics.fmean(part) for part in (values[:window], values[-window:]))
    return f"{name.replace('_', ' ')} {start:.3g} at the start, {now:.3g} at step {step}"


def _sources(subjects: Sequence[Subject]) -> list[EvaluationDetails]:
    return [_evaluation_details(role, evaluation) for _, role, evaluation in with_roles(subjects)]


def _evaluation_details(role: str, evaluation: Evaluation) -> EvaluationDetails:
    settings = evaluation.settings.get("generation")
    generation = settings if isinstance(settings, Mapping) else {}
    code = (evaluation.commit or "")[:12] + (", changed since" if evaluation.dirty else "")
    limit = generation.get("max_tokens")
    values = {
        "model": evaluation.path,
        "fingerprint": evaluation.fingerprint,
        "trained from": evaluation.start_fingerprint,
        "asked": suite_label(evaluation),
        "on": evaluation.created[:19].replace("T", " ") + " UTC",
        "code": code if evaluation.commit else None,
        "served by": generation.get("server"),
        "longest response": f"{limit} tokens" if limit else None,
        "temperature": generation.get("temperature"),
    }
    data = [
        (
            label(score.benchmark),
            label(score.dataset),
            label(f"{score.kit} {score.kit_version}"),
            label(score.judge or NOTHING),
            f"{score.questions:,}",
            f"{score.missing:,}" if score.missing else NOTHING,
            label(score.data_state),
            label(score.data_sha256[:12]),
        )
        for score in sorted(evaluation.scores, key=lambda score: benchmark_rank(score.benchmark))
    ]
    return EvaluationDetails(
        title=f"{model_label(evaluation)} · evaluation {evaluation.id}",
        role=role,
        lines=[(name, label(str(value))) for name, value in values.items() if value is not None],
        data=data,
    )
