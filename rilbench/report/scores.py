"""The rows of the score table and the intervals of the bars, as the page shows them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.evaluate.suite import SUITES
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import pairs, tallies
from rilbench.report.escaping import label
from rilbench.report.selection import Subject, with_roles
from rilbench.table.intervals import Tallies
from rilbench.table.measured_rows import Settings, measured_rows
from rilbench.table.paired_test import Paired, paired
from rilbench.table.paper_rows import PaperCells, main_rows, other_rows
from rilbench.table.types import AVERAGE, FEWEST_SEEDS, UNTRAINED, TableRow, minus

MEAN = AVERAGE
"""The last column of a row."""


_KITS = {"ms-vlmeval": "VLMEvalKit"}
"""Names of evaluation toolkits whose packages are called otherwise."""

_NEAR = 0.1
"""Largest distance of the outcomes' mean from the kit's score, in points, for an interval."""

COLOURS = tuple(f"var(--run{number})" for number in range(8))
"""Of trained models and runs; the page's CSS variables, for light and dark."""
_ROLE_COLOURS = {"before": "var(--before)", "teacher": "var(--teacher)"}
"""Of the first model of a role; any other has one of `COLOURS`."""


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One number of the table, in points.

    Attributes:
        value: 0 to 100; None if it was not measured.
        low, high: the 95 % interval over questions; for `FEWEST_SEEDS` seeds or more, where
            another seed's score falls with 95 % probability; None if it is unknown.
        difference: change from the row's starting point; None without one to compare with.
        decided: the paired test says that the difference is more than chance; unknown for the
            paper's differences.
        paper: the paper's number for the same student, method and teacher.
        heat: 0 to 1, the value's place between the least and the most of its column.
        note: a caveat for the reader.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    decided: bool = False
    paper: float | None = None
    heat: float | None = None
    note: str = ""

    @property
    def from_paper(self) -> float | None:
        """The difference from the paper's number."""
        return minus(self.value, self.paper)


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One row of the table and one bar of each chart.

    Attributes:
        group: its heading: a student of the paper, or a suite.
        label: its name within the group.
        cells: by benchmark, and `MEAN`; a benchmark that the row lacks is missing.
        role: one of `ROLES`, or "" for the paper.
        evaluations: the ledger's numbers, one for each seed; none for the paper.
        colour: of its bars, in CSS.
        suite: such as "paper" or "nano".
        no_mean: why it has no mean; empty if it has one.
    """

    group: str
    label: str
    cells: dict[str, ScoreCell]
    role: str = ""
    evaluations: tuple[int, ...] = ()
    colour: str = "var(--paper)"
    suite: str = "paper"
    no_mean: str = ""

    def cell(self, column: str) -> ScoreCell:
        """Return a column's cell; an empty one if the row lacks it."""
        return self.cells.get(column, ScoreCell(value=None))

    @property
    def compared(self) -> bool:
        """It has differences."""
        return any(cell.difference is not None for cell in self.cells.values())

    @property
    def has_paper(self) -> bool:
        """The paper has the same student, method and teacher."""
        return any(cell.paper is not None for cell in self.cells.values())

    @property
    def remarks(self) -> list[str]:
        """Each note of its cells, with the columns that have it."""
        notes: dict[str, list[str]] = {}
        for column, cell in self.cells.items():
            if cell.note:
                notes.setdefault(cell.note, []).append(column)
        return [f"{note}: {', '.join(columns)}" for note, columns in notes.items()]


def benchmark_rank(benchmark: str) -> tuple[int, str]:
    """Return the sort key of a benchmark: the paper's 14 in its order, then others by name."""
    return PAPER_14.index(benchmark) if benchmark in PAPER_14 else len(PAPER_14), benchmark


def score_columns(rows: Iterable[ScoreRow]) -> list[str]:
    """Return the table's columns: the paper's 14, other measured benchmarks, the mean."""
    measured = {column for row in rows for column in row.cells} - {MEAN}
    return [*sorted(measured | set(PAPER_14), key=benchmark_rank), MEAN]


def score_rows(ledger: Ledger, subjects: Sequence[Subject]) -> list[ScoreRow]:
    """Return the measured rows of all subjects: each model once, the seeds of a recipe as one."""
    shown = with_roles(subjects)
    starts = {(e.fingerprint, e.suite, e.kit): e for s in subjects for e in s.before}
    settings = Settings(
        suite_columns=suite_columns,
        tallies=tallies(ledger, [e.id or 0 for _, _, e in shown]) if shown else {},
        paper=PaperCells([*main_rows(ledger), *other_rows(ledger)]),
    )
    colours = _colours()
    rows = []
    for role, seeds in _by_recipe(shown):
        first = seeds[0]
        start = starts.get((first.start_fingerprint or "", first.suite, first.kit))
        tests = paired_tests(ledger, start, first) if start is not None and len(seeds) == 1 else {}
        measured = measured_rows([*seeds, start] if start is not None else seeds, settings)
        table = next(row for row in measured if first.id in {e.id for e in row.evaluations})
        name = model_label(first, several=len(subjects) > 1 and len(seeds) == 1)
        row = measured_row(
            table, tests, settings.tallies, f"{name}, {len(seeds)} seeds" if seeds[1:] else name
        )
        rows.append(dataclasses.replace(row, role=role, colour=colours(role, row.label)))
    # Rows of one group with the same label get the numbers of their evaluations.
    names = Counter((row.group, row.label) for row in rows)
    return with_heat(
        [
            dataclasses.replace(row, label=f"{row.label} (evaluation {row.evaluations[0]})")
            if names[row.group, row.label] > 1
            else row
            for row in rows
        ]
    )


def _by_recipe(
    shown: Iterable[tuple[int, str, Evaluation]],
) -> list[tuple[str, list[Evaluation]]]:
    """Join evaluations of one recipe's seeds, each seed once, as `measured_rows` does."""
    groups: dict[Hashable, tuple[str, list[Evaluation]]] = {}
    times: Counter[Hashable] = Counter()
    for _, role, e in shown:
        recipe = (role, e.student, e.method, e.teacher, e.suite, e.kit, e.family or e.id)
        key = (recipe, times[recipe, e.seed])
        times[recipe, e.seed] += 1
        groups.setdefault(key, (role, []))[1].append(e)
    return list(groups.values())


def _colours() -> Callable[[str, str], str]:
    """Return a function that gives each model a colour, by its role and label."""
    free, spare = dict(_ROLE_COLOURS), itertools.cycle(COLOURS)
    known: dict[tuple[str, str], str] = {}

    def colour(role: str, name: str) -> str:
        """The same on each suite and kit, on which a model has a row of its own."""
        if (role, name) not in known:
            known[role, name] = free.pop(role, "") or next(spare)
        return known[role, name]

    return colour


def measured_row(
    row: TableRow, tests: Mapping[str, Paired], counts: Tallies, name: str
) -> ScoreRow:
    """Return a row of `measured_rows` as the page shows it.

    Args:
        row: of one model or one recipe's seeds.
        tests: of one evaluation against its start, see `paired_tests`.
        counts: the outcomes in the ledger.
        name: its label.
    """
    columns = sorted({*row.scores, MEAN}, key=benchmark_rank)
    assert row.evaluation is not None
    lacking = [name for name in row.over if row.scores.get(name) is None]
    incomplete = [name for name in row.over if row.cell(name).incomplete]
    whys = {"not measured": lacking, "incomplete": incomplete, "made otherwise": row.mixed}
    why = "; ".join(f"{_few(names)} {word}" for word, names in whys.items() if names)
    return ScoreRow(
        group=suite_label(row.evaluation),
        label=name,
        evaluations=tuple(e.id or 0 for e in row.evaluations),
        cells={
            column: _measured_cell(row, column, tests.get(column), counts) for column in columns
        },
        suite=row.suite,
        no_mean="" if row.average is not None else f"no mean: {why or 'other benchmarks'}",
    )


def _few(names: Sequence[str]) -> str:
    """Return two names, and how many more there are."""
    more = [f"{len(names) - 2} more"] if len(names) > 2 else []
    return " and ".join([", ".join(names[:2]), *more])


def paired_tests(ledger: Ledger, first: Evaluation, second: Evaluation) -> dict[str, Paired]:
    """Compare two evaluations question by question; empty if they share no question.

    Returns:
        The tests by benchmark, and of `MEAN`.
    """
    try:
        tests = paired(pairs(ledger, first.id or 0, second.id or 0), first, second)
    except UserError:
        return {}
    return {test.benchmark: test for test in tests}


def score_rows_of_paper(ledger: Ledger, *, levels: bool = True) -> list[ScoreRow]:
    """Return the paper's main table, with the differences from the untrained student.

    Args:
        ledger: has the paper's numbers.
        levels: also the scores; without, only what training changed, next to models that were
            measured on other questions.
    """
    printed = main_rows(ledger)
    bases = {row.student: row for row in printed if row.method == UNTRAINED}
    rows = []
    for row in printed:
        base = bases.get(row.student) if row.method != UNTRAINED else None
        if base is None and not levels:
            continue
        cells = {
            column: ScoreCell(
                value=row.value(column) if levels else None,
                difference=minus(row.value(column), base.value(column)) if base else None,
            )
            for column in (*PAPER_14, MEAN)
        }
        name = row.method if row.teacher == "none" else f"{row.method} {row.teacher}"
        rows.append(ScoreRow(group=row.student, label=name, cells=cells))
    return with_heat(rows)


def suite_columns(name: str) -> list[str]:
    """Return a suite's benchmarks; the paper's 14 for a suite that this version does not know."""
    return SUITES[name].columns if name in SUITES else list(PAPER_14)


def model_label(evaluation: Evaluation, *, several: bool = False) -> str:
    """Return a model's student, method and teachers; with several models also its run."""
    parts = [evaluation.student]
    if evaluation.method != UNTRAINED:
        parts += [evaluation.method, evaluation.teacher if evaluation.teacher != "none" else ""]
        parts += [f"({evaluation.run})" if several and evaluation.run else ""]
    return label(" ".join(part for part in parts if part))


def suite_label(evaluation: Evaluation) -> str:
    """Return the names of an evaluation's suite and toolkit."""
    suite = "published benchmarks" if evaluation.suite == "paper" else f"{evaluation.suite} suite"
    kit = _KITS.get(evaluation.kit, evaluation.kit)
    return label(", ".join(part for part in (suite, kit) if part))


def _measured_cell(row: TableRow, column: str, test: Paired | None, counts: Tallies) -> ScoreCell:
    notes: list[str] = []
    for evaluation in row.evaluations:
        notes += _notes(evaluation, column, column in row.unlike)
    cell = row.cell(column)
    if cell.odd:
        notes.append(f"made with another {' and '.join(cell.odd)} than the others beside it")
    # An interval over the ledger's responses is only shown where they give the kit's score.
    needed = row.over if column == MEAN else (column,)
    agree = all(_agrees(row, name, counts) for name in needed)
    questions = cell.questions if agree else None
    interval = cell.runs if row.seeds >= FEWEST_SEEDS else questions
    return ScoreCell(
        value=cell.value,
        low=max(0.0, interval.low) if interval else None,
        high=min(100.0, interval.high) if interval else None,
        difference=row.difference.get(column) if row.difference is not None else None,
        decided=test is not None and test.verdict in ("better", "worse"),
        paper=cell.paper,
        note="; ".join(dict.fromkeys(notes)),
    )


def _notes(evaluation: Evaluation, column: str, unlike: bool) -> list[str]:
    """Return the caveats of one score."""
    score = next((score for score in evaluation.scores if score.benchmark == column), None)
    notes = []
    if score is not None:
        if unlike:
            notes.append("not compared with its start: another kit, data, metric, judge or prompt")
        if score.missing:
            notes.append(f"{score.missing} of {score.questions} without a verdict")
        if score.is_incomplete:
            notes.append("incomplete: it counts in no mean and no difference")
        if unread := evaluation.reading(column).unread:
            share = f"{unread} of {score.questions}"
            notes.append(f"{share} choices unread by the kit's rules, so counted as wrong")
        if score.sampled is not None:
            notes.append(f"a sample of {score.questions} questions")
        if score.truncated:
            notes.append(f"{score.truncated} of {score.questions} responses cut off")
        if score.data_state == "unverified":
            notes.append("data unverified")
    return notes


def _agrees(row: TableRow, column: str, counts: Tallies) -> bool:
    """Whether the kit's scores are the means of the outcomes in the ledger."""
    from rilbench.stats import tally_mean

    origins = row.cell(column).origins
    for origin in origins:
        tally = counts.get((origin.evaluation.id or 0, column))
        if not tally or origin.score.value is None:
            return False
        if abs(100 * tally_mean(tally) - origin.score.value) >= _NEAR:
            return False
    return bool(origins)


def with_heat(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Set each cell's heat: where its value is between the least and the most of its group."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for column, cell in row.cells.items():
            if cell.value is not None:
                groups.setdefault((row.group, column), []).append(cell.value)
    for row in rows:
        for column, cell in row.cells.items():
            if cell.value is not None:
                values = groups[row.group, column]
                least, most = min(values), max(values)
                heat = (cell.value - least) / (most - least) if most > least else 0.5
                row.cells[column] = dataclasses.replace(cell, heat=heat)
    return list(rows)
