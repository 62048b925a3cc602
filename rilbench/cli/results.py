"""``rilbench table``, ``compare`` and ``show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db, print_table, write_whole
from rilbench.errors import UserError

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def table(
    format_: Annotated[
        str, typer.Option("--format", help="Format: rich, markdown, latex, csv, html or json.")
    ] = "rich",
    paper: Annotated[bool, typer.Option("--paper", help="The paper's rows only.")] = False,
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
    from rilbench.evaluate.suite import suite_columns
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.build import Choice, build_table, split_names
    from rilbench.table.render import render

    choice = Choice(
        paper=paper,
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
    path = default_db(db)
    if db is not None and not path.exists():
        raise UserError(f"{path} does not exist; rilbench eval writes it")
    with Ledger.open_read(path) as ledger:
        built = build_table(ledger, choice, suite_columns)
    text = render(built, format_, colour=out is None and sys.stdout.isatty())
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
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.build import split_names
    from rilbench.table.comparison import read_comparison
    from rilbench.table.render_comparison import as_json, show

    _require_format(format_)
    with Ledger.open_read(default_db(db)) as ledger:
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
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.inspect_ledger import as_json, everything, find, in_full, overview

    _require_format(format_)
    path = default_db(db)
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
