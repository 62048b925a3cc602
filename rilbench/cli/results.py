"""``rilbench table``, ``compare`` and ``show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db, ledger_to_read, print_table, write_whole
from rilbench.cli.terminal_picture import show_picture
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
    by: Annotated[
        str, typer.Option(help="Finer columns: category, for the categories of each benchmark.")
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
    if by not in ("", "category"):
        raise UserError(f"--by {by} is not known; use category")
    if by and (only == "paper" or ablations):
        raise UserError("the paper has no scores by category; leave --by out")
    choice = Choice(
        categories=by == "category",
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
        str,
        typer.Argument(
            help="Evaluation's number, or a model's folder, run or fingerprint; or a recipe over "
            'seeds, such as "ril both".'
        ),
    ],
    second: Annotated[str, typer.Argument(help="The other one; the newest evaluation of a model.")],
    questions: Annotated[
        bool, typer.Option("--questions", help="List every question that differs.")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Questions to list: gained or lost; default: all that differ.")
    ] = "",
    benchmarks: Annotated[
        str, typer.Option(help="Benchmarks, such as AI2D,MMB; default: all that both have.")
    ] = "",
    format_: Annotated[str, typer.Option("--format", help="Format: rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """Compare two evaluations, question by question, or two recipes, seed by seed."""
    from rilbench.ledger import Ledger
    from rilbench.table import render_recipes
    from rilbench.table.build import split_names
    from rilbench.table.comparison import read_comparison
    from rilbench.table.recipe_comparison import compare_recipes, find_recipes
    from rilbench.table.render_comparison import as_json, show

    _require_format(format_)
    if only not in ("", "gained", "lost"):
        raise UserError(f"--only {only} is not known; use gained or lost")
    with Ledger.open_read(ledger_to_read(db)) as ledger:
        if recipes := find_recipes(ledger, first, second):
            if questions or only:
                raise UserError("recipes are compared by scores; give two evaluations' numbers")
            over_seeds = compare_recipes(ledger, *recipes, split_names(benchmarks))
            if format_ == "json":
                typer.echo(render_recipes.as_json(over_seeds))
                return
            for part in render_recipes.show(over_seeds):
                print_table(part)
            return
        comparison = read_comparison(ledger, first, second, split_names(benchmarks))
    if format_ == "json":
        typer.echo(as_json(comparison, only))
        return
    for part in show(comparison, questions or bool(only), only):
        print_table(part)


def show(
    what: Annotated[
        Optional[str],
        typer.Argument(help="Run, or an evaluation's number or model; default: list all."),
    ] = None,
    question: Annotated[
        str, typer.Option(help="Question of the evaluation to show, such as AI2D/17.")
    ] = "",
    format_: Annotated[str, typer.Option("--format", help="Format: rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """List the training runs and evaluations in the ledger, or show one of them in full."""
    from rilbench.ledger import Ledger
    from rilbench.table.inspect_ledger import as_json, everything, find, in_full, overview

    _require_format(format_)
    path = ledger_to_read(db)
    if question:
        _show_question(path, what, question, format_)
        return
    with Ledger.open_read(path) as ledger:
        records = everything(ledger) if what is None else [find(ledger, what)]
    if format_ == "json":
        typer.echo(as_json(records))
        return
    for part in overview(records, path) if what is None else in_full(records[0]):
        print_table(part)


def _show_question(db: Path, evaluation: str | None, question: str, format_: str) -> None:
    from rilbench.ledger import Ledger
    from rilbench.table.one_question import answered, as_json, asked, find_question
    from rilbench.table.question_diff import find_evaluation

    if evaluation is None:
        raise UserError("--question needs an evaluation: rilbench show 1 --question AI2D/17")
    with Ledger.open_read(db) as ledger:
        found = find_question(ledger, find_evaluation(ledger, evaluation), question)
    if format_ == "json":
        typer.echo(as_json(found))
        return
    for part in asked(found):
        print_table(part)
    for picture in found.content.pictures:
        show_picture(picture)
    for table in answered(found):
        print_table(table)


def _require_format(name: str) -> None:
    if name not in ("rich", "json"):
        raise UserError(f"--format {name} is not known; use rich or json")
