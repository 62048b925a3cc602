"""``rilbench table`` and ``compare``."""

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
        str, typer.Option("--format", help="rich, markdown, latex, csv, html or json.")
    ] = "rich",
    paper: Annotated[bool, typer.Option("--paper", help="The paper's rows only.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Also the other models of Tables 3 and 4.")
    ] = False,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="The paper's Table 5 instead.")
    ] = False,
    student: Annotated[
        Optional[list[str]], typer.Option(help="Only this student; repeatable.")
    ] = None,
    method: Annotated[
        Optional[list[str]], typer.Option(help="Only this method; repeatable.")
    ] = None,
    teacher: Annotated[
        Optional[list[str]], typer.Option(help="Only this teacher; repeatable.")
    ] = None,
    average_over: Annotated[
        str, typer.Option(help="Columns of the mean, such as AI2D,MMB; default the suite's all.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Form the mean of scores that are not comparable, too.")
    ] = False,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="A row for each seed instead of their mean.")
    ] = False,
    out: Annotated[Optional[Path], typer.Option(help="Write it to this file.")] = None,
    db: Db = None,
) -> None:
    """The paper's main table, and under it what was measured."""
    from rilbench.evaluate.suite import suite_columns
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.build import Choice, build_table, read_columns
    from rilbench.table.render import render

    choice = Choice(
        paper=paper,
        every=every,
        ablations=ablations,
        students=tuple(student or ()),
        methods=tuple(method or ()),
        teachers=tuple(teacher or ()),
        over=read_columns(average_over),
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
    first: Annotated[str, typer.Argument(help="A number, or a model's folder, run, fingerprint.")],
    second: Annotated[str, typer.Argument(help="The same; the newest evaluation of a model.")],
    questions: Annotated[
        bool, typer.Option("--questions", help="List every question that differs.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """How two evaluations differ, how sure that is, and which questions make the difference."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.comparison import read_comparison
    from rilbench.table.render_comparison import as_json, show

    if format_ not in ("rich", "json"):
        raise UserError(f"--format {format_} is not known; use rich or json")
    with Ledger.open_read(default_db(db)) as ledger:
        found = read_comparison(ledger, first, second)
    if format_ == "json":
        typer.echo(as_json(found))
        return
    for part in show(found, questions):
        print_table(part)


def show(
    what: Annotated[
        Optional[str],
        typer.Argument(help="A run, or an evaluation's number or model; default: list all."),
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """The training runs and evaluations in the ledger; or one of them in full."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.table import inspect_ledger as showing

    if format_ not in ("rich", "json"):
        raise UserError(f"--format {format_} is not known; use rich or json")
    path = default_db(db)
    with Ledger.open_read(path) as ledger:
        found = showing.everything(ledger) if what is None else [showing.find(ledger, what)]
    if format_ == "json":
        typer.echo(showing.as_json(found))
        return
    for part in showing.overview(found, path) if what is None else showing.in_full(found[0]):
        print_table(part)
