"""``rilbench table``, ``compare`` and ``show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db, ledger_to_read, print_table, write_whole
from rilbench.errors import UserError

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def table(
    format_: Annotated[
        str, typer.Option("--format", help="Format: rich, markdown, latex, csv, html or json.")
    ] = "rich",
    only: Annotated[str, typer.Option(help="Rows to show: paper or measured; default: all.")] = "",
    every: Annotated[
        bool, typer.Option("--all", help="The other models of Tables 3 and 4, too.")
    ] = False,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="The paper's Table 5 instead.")
    ] = False,
    student: Annotated[
        Optional[list[str]], typer.Option(help="Student to show; repeatable.")
    ] = None,
    method: Annotated[Optional[list[str]], typer.Option(help="Method to show; repeatable.")] = None,
    teacher: Annotated[
        Optional[list[str]], typer.Option(help="Teacher to show; repeatable.")
    ] = None,
    suite: Annotated[
        Optional[list[str]], typer.Option(help="Suite to show, such as paper; repeatable.")
    ] = None,
    tag: Annotated[
        Optional[list[str]],
        typer.Option(help="Tag of evaluations to show (rilbench ledger tag); repeatable."),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="Column to sort by, best first: a benchmark or mean.")
    ] = "",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Rows to show at most.")] = None,
    details: Annotated[
        Optional[bool],
        typer.Option(
            help="Changes, intervals and the numbers of evaluations; default: all but latex."
        ),
    ] = None,
    benchmarks: Annotated[
        str,
        typer.Option(
            help="Columns, such as AI2D,MMB; default: the paper's 14 and all others measured."
        ),
    ] = "",
    average_over: Annotated[
        str, typer.Option(help="Benchmarks of the mean, such as AI2D,MMB; default: the paper's 14.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Average scores that are not comparable, too.")
    ] = False,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="One row per seed instead of their mean.")
    ] = False,
    out: Annotated[Optional[Path], typer.Option(help="File to write; default: print.")] = None,
    db: Db = None,
) -> None:
    """Show the paper's main table and, below it, what was measured."""
    from rich.console import Console

    from rilbench.evaluate.suite import suite_columns
    from rilbench.ledger import Ledger
    from rilbench.table.build import Choice, build_table, split_names
    from rilbench.table.render import render

    if only not in ("", "paper", "measured"):
        raise UserError(f"--only {only} is not known; use paper or measured")
    choice = Choice(
        paper=only == "paper",
        measured=only == "measured",
        suites=tuple(suite or ()),
        tags=tuple(tag or ()),
        sort=sort,
        limit=limit,
        details=format_ != "latex" if details is None else details,
        every=every,
        ablations=ablations,
        students=tuple(student or ()),
        methods=tuple(method or ()),
        teachers=tuple(teacher or ()),
        benchmarks=split_names(benchmarks),
        over=split_names(average_over),
        force=force,
        each_seed=seeds,
    )
    with Ledger.open_read(ledger_to_read(db)) as ledger:
        built = build_table(ledger, choice, suite_columns)
    on_screen = out is None and sys.stdout.isatty()
    width = Console().width if on_screen else None
    text = render(built, format_, colour=on_screen, width=width)
    if out is None:
        typer.echo(text)
    else:
        write_whole(out, text + "\n")


def compare(
    first: Annotated[
        str, typer.Argument(help="Evaluation's number, or a model's folder, run or fingerprint.")
    ],
    second: Annotated[str, typer.Argument(help="The other one; the newest evaluation of a model.")],
    questions: Annotated[
        bool, typer.Option("--questions", help="List every question that differs.")
    ] = False,
    benchmarks: Annotated[
        str, typer.Option(help="Benchmarks, such as AI2D,MMB; default: all that both have.")
    ] = "",
    format_: Annotated[str, typer.Option("--format", help="Format: rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """Compare two evaluations: scores, significance, and the questions that differ."""
    from rilbench.ledger import Ledger
    from rilbench.table.build import split_names
    from rilbench.table.comparison import read_comparison
    from rilbench.table.render_comparison import as_json, show

    _require_format(format_)
    with Ledger.open_read(ledger_to_read(db)) as ledger:
        comparison = read_comparison(ledger, first, second, split_names(benchmarks))
    if format_ == "json":
        typer.echo(as_json(comparison))
        return
    for part in show(comparison, questions):
        print_table(part)


def show(
    what: Annotated[
        Optional[str],
        typer.Argument(help="Run, or an evaluation's number or model; default: list all."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="Format: rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """List the training runs and evaluations in the ledger, or show one of them in full."""
    from rilbench.ledger import Ledger
    from rilbench.table.inspect_ledger import as_json, everything, find, in_full, overview

    _require_format(format_)
    path = ledger_to_read(db)
    with Ledger.open_read(path) as ledger:
        records = everything(ledger) if what is None else [find(ledger, what)]
    if format_ == "json":
        typer.echo(as_json(records))
        return
    for part in overview(records, path) if what is None else in_full(records[0]):
        print_table(part)


def _require_format(name: str) -> None:
    if name not in ("rich", "json"):
        raise UserError(f"--format {name} is not known; use rich or json")
