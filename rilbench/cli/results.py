"""``rilbench table`` and ``compare``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rilbench.cli.options import Db, print_table
from rilbench.errors import UserError


def table(
    format_: Annotated[str, typer.Option("--format", help="rich, markdown or json.")] = "rich",
    db: Db = None,
) -> None:
    """The paper's main table, and under it what was measured."""
    from rilbench.evaluate.suite import suite_columns
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.compare import table_rows
    from rilbench.table.render import render

    path = default_db(db)
    if db is not None and not path.exists():
        raise UserError(f"{path} does not exist; rilbench eval writes it")
    with Ledger.open_read(path) as ledger:
        rows = table_rows(ledger.evaluations(), suite_columns)
    typer.echo(render(rows, format_, colour=sys.stdout.isatty()))


def compare(
    first: Annotated[str, typer.Argument(help="A number, or a model's folder, run, fingerprint.")],
    second: Annotated[str, typer.Argument(help="The same; the newest evaluation of a model.")],
    questions: Annotated[
        bool, typer.Option("--questions", help="List every question that differs.")
    ] = False,
    format_: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
    db: Db = None,
) -> None:
    """Why two scores differ: the questions whose outcomes do, by cause."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.table.questions import differences, find_evaluation
    from rilbench.table.questions_view import as_json, questions_table, summary_table

    if format_ not in ("rich", "json"):
        raise UserError(f"--format {format_} is not known; use rich or json")
    with Ledger.open_read(default_db(db)) as ledger:
        sides = [find_evaluation(ledger, name) for name in (first, second)]
        samples = [ledger.samples(each.id or 0) for each in sides]
    found = differences(*samples, same_kit=sides[0].kit == sides[1].kit)
    if format_ == "json":
        typer.echo(as_json(found))
        return
    for word, each in zip(("first", "second"), sides, strict=True):
        model = f"{each.student} {each.method} {each.teacher}"
        typer.echo(f"{word}: {each.id} {model} by {each.kit}, {each.path}")
    if not found:
        typer.echo("no question has another outcome")
        return
    print_table(summary_table(found))
    if questions:
        typer.echo()
        print_table(questions_table(found))
