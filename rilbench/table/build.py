"""The table from a ledger: which rows, over which columns, with which notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rilbench.benchmark_names import COLUMNS
from rilbench.errors import UserError
from rilbench.ledger import Ledger
from rilbench.ledger.queries import tallies
from rilbench.table.footnotes import notes
from rilbench.table.measured_rows import Settings, SuiteColumns, measured_rows
from rilbench.table.paper_rows import PaperCells, ablation_rows, main_rows, other_rows, same_name
from rilbench.table.types import Table, TableRow


@dataclass(frozen=True)
class Choice:
    """What the table is to have.

    Attributes:
        paper: the paper's rows only.
        every: Tables 3 and 4, too.
        ablations: Table 5 instead of the main one.
        students: only these; none for all. So also ``methods`` and ``teachers``.
        over: columns of the average; none for the suite's own.
        force: average also what was made in different ways.
        each_seed: a row for each run instead of one for the seeds of a recipe.
    """

    paper: bool = False
    every: bool = False
    ablations: bool = False
    students: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    force: bool = False
    each_seed: bool = False


def build_table(ledger: Ledger, choice: Choice, suite_columns: SuiteColumns) -> Table:
    """Return the paper's rows and, under them, what was measured.

    Raises:
        UserError: a label that no row has, or see `Ledger`.
    """
    over = choice.over or COLUMNS
    main, other = main_rows(ledger, over), other_rows(ledger, over)
    printed = ablation_rows(ledger, over) if choice.ablations else main
    rows = [*printed, *(other if choice.every else ())]
    if not choice.paper and not choice.ablations:
        evaluations = ledger.evaluations()
        settings = Settings(
            suite_columns=suite_columns,
            tallies=tallies(ledger, [each.id or 0 for each in evaluations]),
            paper=PaperCells([*main, *other]),
            over=choice.over,
            force=choice.force,
            each_seed=choice.each_seed,
        )
        rows += measured_rows(evaluations, settings)
    rows = _chosen(rows, choice)
    return Table(tuple(rows), tuple(notes(rows)), choice.over)


def _chosen(rows: Sequence[TableRow], choice: Choice) -> list[TableRow]:
    kept = list(rows)
    labels: tuple[tuple[str, tuple[str, ...], Callable[[TableRow], str]], ...] = (
        ("student", choice.students, lambda row: row.student),
        ("method", choice.methods, lambda row: row.method),
        ("teacher", choice.teachers, lambda row: row.teacher),
    )
    for name, wanted, label in labels:
        known = {same_name(label(row)): label(row) for row in rows}
        for each in wanted:
            if same_name(each) not in known:
                some = ", ".join(sorted(known.values()))
                raise UserError(f"no row has the {name} {each!r}; there is {some}")
        names = {same_name(each) for each in wanted}
        kept = [row for row in kept if not names or same_name(label(row)) in names]
    return kept


def read_columns(text: str) -> tuple[str, ...]:
    """Read ``--average-over``: columns of the table, in its order; case does not matter.

    Raises:
        UserError: there is no such column.
    """
    known = {column.lower(): column for column in COLUMNS}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UserError(f"there is no column {name!r}; there is {', '.join(COLUMNS)}")
    return tuple(column for column in COLUMNS if column.lower() in names)
