"""Build the table from a ledger: its rows, columns and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rilbench.benchmark_names import PAPER_14
from rilbench.errors import UserError
from rilbench.ledger import Evaluation, Ledger
from rilbench.ledger.queries import tallies
from rilbench.table.categories import Categories, with_categories, without_categories
from rilbench.table.footnotes import notes
from rilbench.table.measured_rows import Settings, SuiteColumns, measured_rows
from rilbench.table.paper_rows import PaperCells, ablation_rows, main_rows, other_rows, same_name
from rilbench.table.types import AVERAGE, Table, TableRow, in_order


@dataclass(frozen=True)
class Choice:
    """The content of the table. Names may be written in any case.

    Attributes:
        paper: the paper's rows only.
        every: Tables 3 and 4, too.
        ablations: Table 5 instead of the main table.
        students: only these; all if empty. So also ``methods`` and ``teachers``.
        benchmarks: the columns; if empty, the paper's 14 and every other measured benchmark.
        over: benchmarks of the average; if empty, the paper's in the row's suite.
        force: average scores of different provenance, too.
        each_seed: one row per run instead of one for all seeds of a recipe.
        categories: measured rows with the categories of each benchmark as columns.
        measured: the measured rows only.
        suites: measured rows of these suites only; all if empty.
        tags: measured rows of evaluations with one of these tags only; all if empty.
        sort: sort each student's rows by this column, best first; "" for their own order.
        limit: show so many rows at most; None for all.
        details: see `Table`.
    """

    paper: bool = False
    measured: bool = False
    suites: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sort: str = ""
    limit: int | None = None
    details: bool = True
    every: bool = False
    ablations: bool = False
    students: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    force: bool = False
    each_seed: bool = False
    categories: bool = False


def build_table(ledger: Ledger, choice: Choice, suite_columns: SuiteColumns) -> Table:
    """Return the paper's rows and, below them, what was measured.

    Raises:
        UserError: a label that no row has, an unknown benchmark, or see `Ledger`.
    """
    measured = not choice.paper and not choice.ablations
    evaluations = ledger.evaluations() if measured else []
    if choice.tags:
        evaluations = tagged(evaluations, choice.tags)
    counts = tallies(ledger, [evaluation.id or 0 for evaluation in evaluations])
    categories: Categories = {}
    if choice.categories:
        evaluations, finer, categories = with_categories(ledger, evaluations)
        counts |= finer
    known = in_order([*PAPER_14, *(s.benchmark for e in evaluations for s in e.scores)])
    over = choose_benchmarks(choice.over, known)
    main, other = main_rows(ledger, over or PAPER_14), other_rows(ledger, over or PAPER_14)
    rows = ablation_rows(ledger, over or PAPER_14) if choice.ablations else list(main)
    if choice.every:
        rows += other
    if choice.measured or categories:
        rows = []
    if measured:
        settings = Settings(
            suite_columns=suite_columns,
            tallies=counts,
            paper=PaperCells([*main, *other]),
            over=over,
            force=choice.force,
            each_seed=choice.each_seed,
        )
        rows += measured_rows(evaluations, settings)
    rows = _sorted(_with_labels(rows, choice), choice, known)[: choice.limit]
    columns = choose_benchmarks(choice.benchmarks, known) or in_order(
        [*PAPER_14, *(benchmark for row in rows for benchmark in row.scores)]
    )
    noted = rows
    if categories:
        noted = [without_categories(row, categories) for row in rows]
        own = choose_benchmarks(choice.benchmarks, tuple(categories)) or in_order(categories)
        finer_columns = [column for name in own for column in (name, *categories[name])]
        columns = tuple(c for c in finer_columns if any(c in row.scores for row in rows))
    return Table(
        tuple(rows),
        tuple(notes(noted, in_order(categories) or columns, details=choice.details)),
        over,
        columns,
        choice.details,
    )


def tagged(evaluations: Sequence[Evaluation], tags: Sequence[str]) -> list[Evaluation]:
    """Return the evaluations with one of the tags.

    Raises:
        UserError: no evaluation has a tag.
    """
    known = sorted({tag for e in evaluations for tag in e.tags})
    for tag in tags:
        if tag not in known:
            raise UserError(f"no evaluation has the tag {tag!r}; known: {', '.join(known) or '-'}")
    return [e for e in evaluations if set(e.tags) & set(tags)]


def _sorted(rows: list[TableRow], choice: Choice, known: Sequence[str]) -> list[TableRow]:
    """Return the rows of each source by a column, best first.

    Those without a number, or with one of too few verdicts, are last.

    Raises:
        UserError: there is no such column.
    """
    if not choice.sort:
        return rows
    column = AVERAGE
    if choice.sort.lower() not in ("mean", AVERAGE):
        (column,) = choose_benchmarks((choice.sort,), known)

    def key(row: TableRow) -> tuple[bool, bool, float]:
        value = None if row.cell(column).incomplete else row.value(column)
        return (row.source == "measured", value is None, -(value or 0.0))

    return sorted(rows, key=key)


def _with_labels(rows: list[TableRow], choice: Choice) -> list[TableRow]:
    """Return the rows with the chosen students, methods and teachers."""
    kept = rows
    for label, wanted in (
        ("suite", choice.suites),
        ("student", choice.students),
        ("method", choice.methods),
        ("teacher", choice.teachers),
    ):
        known = {same_name(getattr(row, label)): getattr(row, label) for row in rows}
        for name in wanted:
            if same_name(name) not in known:
                choices = ", ".join(sorted(known.values()))
                raise UserError(f"no row has the {label} {name!r}; choose from: {choices}")
        names = set(map(same_name, wanted))
        kept = [row for row in kept if not names or same_name(getattr(row, label)) in names]
    return kept


def choose_benchmarks(names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the known benchmarks with these names, in their own order; case does not matter.

    Raises:
        UserError: a benchmark is not known.
    """
    lower = {benchmark.lower() for benchmark in known}
    for name in names:
        if name.lower() not in lower:
            raise UserError(f"no benchmark {name!r}; choose from: {', '.join(known)}")
    wanted = {name.lower() for name in names}
    return tuple(benchmark for benchmark in known if benchmark.lower() in wanted)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names in an option's value, which are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
