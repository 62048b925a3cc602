"""Everything that a report shows, gathered from the ledger and the runs' folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rilbench.benchmark_names import COLUMNS
from rilbench.ledger import Evaluation, Ledger, Run
from rilbench.report.charts import Chart, Key, bar_charts, curve_charts, curve_keys
from rilbench.report.escaping import MINUS, NOTHING, clean, label
from rilbench.report.page_json import Steps
from rilbench.report.questions import QuestionSet, question_sets
from rilbench.report.rollout_groups import training_steps
from rilbench.report.scores import (
    MEAN,
    ScoreRow,
    model_label,
    paired_tests,
    score_rows,
    score_rows_of_paper,
    suite_label,
)
from rilbench.report.selection import Subject, find_subjects
from rilbench.table.paper_rows import same_name


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One figure of the summary; ``tone`` is "gain", "loss" or nothing."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """The bars of one suite and kit."""

    group: str
    charts: Sequence[Chart]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where one evaluation's numbers come from: names and values, and the settings in full."""

    title: str
    role: str
    lines: Sequence[tuple[str, str]]
    data: Sequence[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run's recipe, and what the run warned of."""

    name: str
    lines: Sequence[tuple[str, str]]
    yaml: str
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the page shows. Texts are clean, but not escaped: see `rilbench.report.escaping`."""

    title: str
    subtitle: str
    facts: Sequence[Fact]
    rows: Sequence[ScoreRow]
    paper: Sequence[ScoreRow]
    near: str
    """The paper's student that the measured ones stand beside."""
    published: bool
    """Every measured row is of the published benchmarks."""
    bars: Sequence[Bars]
    curves: Sequence[Chart]
    keys: Sequence[Key]
    recipes: Sequence[Recipe]
    sources: Sequence[Source]
    sets: Sequence[QuestionSet] = field(repr=False)
    steps: Sequence[Steps] = field(repr=False)


def gather(ledger: Ledger, names: Sequence[str], teachers: Sequence[str] = ()) -> Report:
    """Gather a report; see `find_subjects` for its arguments.

    Raises:
        UserError: a name stands for nothing, or for several runs or models.
    """
    subjects = find_subjects(ledger, names, teachers)
    rows, paper = score_rows(ledger, subjects), score_rows_of_paper(ledger)
    near = _near(subjects, paper)
    runs = [each.run for each in subjects if each.run is not None]
    sets = question_sets(ledger, subjects)
    return Report(
        title=label(", ".join(each.name for each in subjects)),
        subtitle=_subtitle(subjects),
        facts=_facts(ledger, subjects, rows),
        rows=rows,
        paper=paper,
        near=near,
        published=all(e.suite == "paper" for s in subjects for _, e in s.evaluations),
        bars=_bars(rows, [row for row in paper if row.group == near], subjects),
        curves=curve_charts(runs),
        keys=curve_keys(runs),
        recipes=[_recipe(run) for run in runs],
        sources=_sources(subjects),
        sets=sets,
        steps=_steps(subjects),
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


def _near(subjects: Sequence[Subject], paper: Sequence[ScoreRow]) -> str:
    """The paper's student of the same name; else the first, which the paper puts first as well."""
    students = list(dict.fromkeys(row.group for row in paper))
    own = {same_name(each.student) for subject in subjects for each in subject.after}
    own |= {same_name(subject.run.student) for subject in subjects if subject.run}
    return next((student for student in students if same_name(student) in own), students[0])


def _bars(
    rows: Sequence[ScoreRow], paper: Sequence[ScoreRow], subjects: Sequence[Subject]
) -> list[Bars]:
    """The paper's untrained student, and its RIL with the same teachers, stand beside."""
    teachers = {each.teacher for subject in subjects for each in subject.after}
    teachers |= {subject.run.teacher for subject in subjects if subject.run}
    wanted = [row for row in paper if row.label == "base"]
    wanted += [row for row in paper if row.label in {f"RIL {teacher}" for teacher in teachers}]
    groups = dict.fromkeys(row.group for row in rows)
    return [
        Bars(group=group, charts=bar_charts([r for r in rows if r.group == group], wanted))
        for group in groups
    ]


def _facts(ledger: Ledger, subjects: Sequence[Subject], rows: Sequence[ScoreRow]) -> list[Fact]:
    after = [row for row in rows if row.role == "after"]
    if len(subjects) > 1:
        found = [_average(row, row.label) for row in after]
        return [each for each in found if each is not None][:8]
    facts = [_average(row, "Mean score") for row in after[:1]]
    facts += _change(ledger, subjects[0])
    run = subjects[0].run
    return [each for each in (*facts, *(_effort(run) if run else ())) if each is not None]


def _average(row: ScoreRow, name: str) -> Fact | None:
    cell = row.cells[MEAN]
    if cell.value is None:
        return None
    interval = "" if cell.low is None else f"95 % interval {cell.low:.1f} to {cell.high:.1f}"
    change = "" if cell.difference is None else f"{_signed(cell.difference)} from the start"
    return Fact(label=name, value=f"{cell.value:.1f}", note=interval or change)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", MINUS)


def _change(ledger: Ledger, subject: Subject) -> list[Fact]:
    """What training changed, by the paired comparison of the first evaluation with its start."""
    if not subject.before:
        return []
    after = subject.after[0]
    same = [e for e in subject.before if (e.suite, e.kit) == (after.suite, after.kit)]
    tests = paired_tests(ledger, same[0], after) if same else {}
    if not tests:
        return []
    mean = tests.get(MEAN) or next(iter(tests.values()))
    change = mean.difference
    ends = f"95 % interval {_signed(change.low)} to {_signed(change.high)}"
    tone = {"better": "gain", "worse": "loss"}.get(mean.verdict, "")
    moved = f"+{mean.gained:,} {MINUS}{mean.lost:,}"
    return [
        Fact(label="Change from the start", value=_signed(change.mean), note=ends, tone=tone),
        Fact(label="Questions gained, lost", value=moved, note=f"of {mean.questions:,}"),
    ]


def _effort(run: Run) -> list[Fact]:
    figures: Mapping[str, Any] = run.figures
    facts = []
    if figures.get("steps"):
        seconds = figures.get("step_seconds")
        note = f"{seconds:.1f} s each, the median" if seconds else ""
        facts.append(Fact(label="Steps", value=f"{figures['steps']:,}", note=note))
    if figures.get("trained_tokens"):
        calls = figures.get("judge_calls")
        note = f"{calls:,} judge calls" if calls else ""
        tokens = f"{figures['trained_tokens']:,}"
        facts.append(Fact(label="Tokens trained on", value=tokens, note=note))
    return facts


def _recipe(run: Run) -> Recipe:
    values = {
        "status": run.status,
        "folder": run.path,
        "begun": run.created,
        "finished": run.finished,
        "recipe": run.recipe_fingerprint,
        "family": run.family,
        "peak memory": f"{run.figures['memory_gb']:.1f} GB" if run.figures.get("memory_gb") else "",
    }
    warned = [
        f"step {step}: {clean(str(text))}"
        for step, found in enumerate(run.curves.get("warnings", ()), start=1)
        for text in (found if isinstance(found, list) else [])
    ]
    lines = [(name, label(str(value))) for name, value in values.items() if value]
    return Recipe(
        name=label(run.name), lines=lines, yaml=clean(run.recipe_yaml), warnings=warned[:20]
    )


def _sources(subjects: Sequence[Subject]) -> list[Source]:
    seen: dict[int, tuple[str, Evaluation]] = {}
    for subject in subjects:
        for role, each in subject.evaluations:
            seen.setdefault(each.id or 0, (role, each))
    return [_source(role, each) for role, each in seen.values()]


def _source(role: str, each: Evaluation) -> Source:
    generation = each.settings.get("generation")
    how = generation if isinstance(generation, Mapping) else {}
    values = {
        "model": each.path,
        "fingerprint": each.fingerprint,
        "trained from": each.start_fingerprint,
        "asked": suite_label(each),
        "on": each.created[:19].replace("T", " ") + " UTC",
        "code": f"{each.commit[:12]}{', changed since' if each.dirty else ''}"
        if each.commit
        else None,
        "served by": how.get("server"),
        "longest answer": f"{how['max_tokens']} tokens" if how.get("max_tokens") else None,
        "temperature": how.get("temperature"),
    }
    lines = [(name, label(str(value))) for name, value in values.items() if value is not None]
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
        for score in sorted(each.scores, key=lambda score: _place(score.benchmark))
    ]
    title = f"{model_label(each)} · evaluation {each.id}"
    return Source(title=title, role=role, lines=lines, data=data)


def _place(benchmark: str) -> int:
    return COLUMNS.index(benchmark) if benchmark in COLUMNS else len(COLUMNS)


def _steps(subjects: Sequence[Subject]) -> list[Steps]:
    found = []
    for subject in subjects:
        if subject.run is not None and subject.folder is not None:
            steps = training_steps(subject.folder, subject.run.recipe_yaml)
            if steps:
                found.append(Steps(run=subject.run.name, steps=tuple(steps)))
    return found
