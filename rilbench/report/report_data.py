"""Everything that a report shows, gathered from the ledger and the runs' folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rilbench.data.rollout_groups import training_steps
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.report.charts import Chart, LegendEntry, bar_charts, curve_charts, curve_legend
from rilbench.report.escaping import MINUS, NOTHING, clean, label
from rilbench.report.page_json import RunSteps
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
from rilbench.report.selection import Subject, find_subjects
from rilbench.table.paper_rows import same_name


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
    """Every measured row is on the published benchmarks."""
    bars: Sequence[BarCharts]
    curves: Sequence[Chart]
    legend: Sequence[LegendEntry]
    recipes: Sequence[RunDetails]
    sources: Sequence[EvaluationDetails]
    sets: Sequence[QuestionSet] = field(repr=False)
    steps: Sequence[RunSteps] = field(repr=False)


def gather(ledger: Ledger, names: Sequence[str], teachers: Sequence[str] = ()) -> ReportData:
    """Gather a report; see `find_subjects` for its arguments.

    Raises:
        UserError: a name matches nothing, or several runs or models.
    """
    subjects = find_subjects(ledger, names, teachers)
    rows, paper = score_rows(ledger, subjects), score_rows_of_paper(ledger)
    near = _nearest_student(subjects, paper)
    runs = [subject.run for subject in subjects if subject.run is not None]
    steps = []
    for subject in subjects:
        if subject.run is not None and subject.folder is not None:
            recorded = training_steps(subject.folder, subject.run.recipe_yaml)
            if recorded:
                steps.append(RunSteps(run=subject.run.name, steps=tuple(recorded)))
    return ReportData(
        title=label(", ".join(subject.name for subject in subjects)),
        subtitle=_subtitle(subjects),
        facts=_facts(ledger, subjects, rows),
        columns=score_columns(rows),
        rows=rows,
        paper=paper,
        near=near,
        published=all(e.suite == "paper" for s in subjects for _, e in s.evaluations),
        bars=_bars(rows, [row for row in paper if row.group == near], subjects),
        curves=curve_charts(runs),
        legend=curve_legend(runs),
        recipes=[_run_details(run) for run in runs],
        sources=_sources(subjects),
        sets=question_sets(ledger, subjects),
        steps=steps,
    )


def _subtitle(subjects: Sequence[Subject]) -> str:
    if len(subjects) > 1:
        return f"{len(subjects)} side by side"
    run = subjects[0].run
    if run is None:
        return f"an evaluation of {label(subjects[0].after[0].path)}"
    parts = [f"{run.student} trained by {run.method}"]
    parts += [f"teachers: {run.teacher}"] if run.teacher not in ("", "none") else []
    parts += [f"seed {run.seed}"] if run.seed is not None else []
    return label(", ".join(parts))


def _nearest_student(subjects: Sequence[Subject], paper: Sequence[ScoreRow]) -> str:
    """Return the paper's student of the same name, else its first, as in the paper."""
    students = list(dict.fromkeys(row.group for row in paper))
    measured = {same_name(e.student) for subject in subjects for e in subject.after}
    measured |= {same_name(subject.run.student) for subject in subjects if subject.run}
    return next((name for name in students if same_name(name) in measured), students[0])


def _bars(
    rows: Sequence[ScoreRow], paper: Sequence[ScoreRow], subjects: Sequence[Subject]
) -> list[BarCharts]:
    """Return the bar charts, with the paper's untrained student and its RIL by these teachers."""
    teachers = {evaluation.teacher for subject in subjects for evaluation in subject.after}
    teachers |= {subject.run.teacher for subject in subjects if subject.run}
    wanted = [row for row in paper if row.label == "base"]
    wanted += [row for row in paper if row.label in {f"RIL {teacher}" for teacher in teachers}]
    return [
        BarCharts(group=group, charts=bar_charts([r for r in rows if r.group == group], wanted))
        for group in dict.fromkeys(row.group for row in rows)
    ]


def _facts(ledger: Ledger, subjects: Sequence[Subject], rows: Sequence[ScoreRow]) -> list[Fact]:
    after = [row for row in rows if row.role == "after"]
    if len(subjects) > 1:
        facts = [_mean_score(row, row.label) for row in after]
        return [fact for fact in facts if fact is not None][:8]
    facts = [_mean_score(row, "Mean score") for row in after[:1]]
    facts += _change(ledger, subjects[0])
    run = subjects[0].run
    return [fact for fact in (*facts, *(_effort(run) if run else ())) if fact is not None]


def _mean_score(row: ScoreRow, name: str) -> Fact | None:
    cell = row.cells[MEAN]
    if cell.value is None:
        return None
    interval = "" if cell.low is None else f"95 % interval {cell.low:.1f} to {cell.high:.1f}"
    change = "" if cell.difference is None else f"{_signed(cell.difference)} from the start"
    return Fact(label=name, value=f"{cell.value:.1f}", note=interval or change)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def _change(ledger: Ledger, subject: Subject) -> list[Fact]:
    """Return the change by training, from the paired test of the first evaluation and its start."""
    after = subject.after[0] if subject.after else None
    starts = [e for e in subject.before if after and (e.suite, e.kit) == (after.suite, after.kit)]
    tests = paired_tests(ledger, starts[0], after) if starts and after else {}
    comparable = [t for t in tests.values() if not t.unlike and not t.incomplete]
    mean = tests.get(MEAN) or (comparable[0] if len(comparable) == len(tests) == 1 else None)
    if mean is None:  # One benchmark of several is not the change.
        return []
    change = mean.difference
    ends = f"95 % interval {_signed(change.low)} to {_signed(change.high)}"
    tone = {"better": "gain", "worse": "loss"}.get(mean.verdict, "")
    moved = f"+{mean.gained:,} {MINUS}{mean.lost:,}"
    return [
        Fact(label="Change from the start", value=_signed(change.mean), note=ends, tone=tone),
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
    warnings = [
        f"step {step}: {clean(str(text))}"
        for step, texts in enumerate(run.curves.get("warnings", ()), start=1)
        for text in (texts if isinstance(texts, list) else [])
    ]
    return RunDetails(
        name=label(run.name),
        lines=[(name, label(str(value))) for name, value in values.items() if value],
        yaml=clean(run.recipe_yaml),
        warnings=warnings[:20],
    )


def _sources(subjects: Sequence[Subject]) -> list[EvaluationDetails]:
    seen: dict[int, tuple[str, Evaluation]] = {}
    for subject in subjects:
        for role, evaluation in subject.evaluations:
            seen.setdefault(evaluation.id or 0, (role, evaluation))
    return [_evaluation_details(role, evaluation) for role, evaluation in seen.values()]


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
