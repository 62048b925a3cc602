"""``rilbench ledger``: back up, verify, recover, forget, merge and tag."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rilbench.cli.options import Db
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.ledger import Evaluation

ledger_app = typer.Typer(
    help="Care for the ledger: back it up, verify, recover, forget, merge, tag.",
    no_args_is_help=True,
)

Numbers = Annotated[list[int], typer.Argument(help="Evaluations' numbers; rilbench show has them.")]


@ledger_app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="An existing file is replaced.")
    ] = False,
    db: Db = None,
) -> None:
    """Copy the ledger while others may write to it; the copy is checked."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.ledger.housekeeping import back_up

    with Ledger.open_read(default_db(db), required=True) as ledger:
        count = back_up(ledger, file, overwrite=overwrite)
    typer.echo(f"written: {file}, {file.stat().st_size / 1e6:.1f} MB, {count} evaluations")


@ledger_app.command()
def verify(db: Db = None) -> None:
    """Check the file, its references, and every score against its answers; exit 1 if any fails."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.ledger.housekeeping import verify
    from rilbench.printable import printable

    path = default_db(db)
    with Ledger.open_read(path, required=True) as ledger:
        found = verify(ledger)
    for line in found.wrong:
        typer.echo(printable(line))
    if found.damaged:
        numbers = " ".join(map(str, found.damaged))
        raise UserError(
            f"{path} is not sound: {len(found.wrong)} findings; restore a backup, or remove what "
            f"cannot be read: rilbench ledger forget {numbers} --db {path}"
        )
    if found.wrong:
        raise UserError(
            f"{path} is not sound: {len(found.wrong)} findings; restore a backup, or rilbench "
            f"ledger recover {path} NEW.db if the file is damaged"
        )
    unknown = f"; {found.unknown} have no answers to check them by" if found.unknown else ""
    typer.echo(f"{path} is sound: {found.agree} scores agree with their answers{unknown}")


@ledger_app.command()
def recover(
    damaged: Annotated[Path, typer.Argument(help="Damaged ledger; it is not changed.")],
    new: Annotated[Path, typer.Argument(help="New ledger to write.")],
) -> None:
    """Save what a damaged ledger still holds in a new one; exit 1 if anything was lost."""
    from rilbench.ledger.recovery import recover

    found = recover(damaged, new)
    for line in found.lines():
        typer.echo(line)
    if found.is_lossy:
        raise UserError(f"{damaged} has lost data; what could be read is in {new}")


@ledger_app.command()
def forget(
    numbers: Numbers,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    db: Db = None,
) -> None:
    """Remove evaluations with their scores and answers; their numbers are not used again."""
    from rilbench.ledger import Ledger
    from rilbench.ledger.housekeeping import chosen, forget

    with Ledger(_existing(db)) as ledger:
        known = chosen(ledger, numbers)
        for number, evaluation in known.items():
            typer.echo(_line(number, evaluation))
        if not yes and not sys.stdin.isatty():
            raise UserError("nothing is removed without a confirmation; use --yes")
        if not yes and not typer.confirm("remove them?"):
            raise typer.Exit(1)
        removed = forget(ledger, known)
    counts = ", ".join(f"{count} {table}" for table, count in removed.items())
    typer.echo(f"removed: {counts.replace('samples', 'answers')}")


@ledger_app.command()
def merge(
    other: Annotated[Path, typer.Argument(help="Ledger to copy from; it is not changed.")],
    db: Db = None,
) -> None:
    """Copy the evaluations and runs of another ledger that this one does not have."""
    from rilbench.ledger import Ledger, default_db
    from rilbench.ledger.housekeeping import merge

    path = default_db(db)
    if path.exists() and other.exists() and other.samefile(path):
        raise UserError(f"{other} is this ledger; give another one")
    with Ledger.open_read(other, required=True) as source, Ledger(path) as ledger:
        done = merge(ledger, source)
    typer.echo(
        f"{path}: {done.evaluations} evaluations with {done.answers} answers and {done.runs} runs "
        f"are new; {done.known} evaluations were there"
    )


@ledger_app.command()
def tag(
    numbers: Numbers,
    name: Annotated[
        str, typer.Argument(help="Tag, by which show, compare, report and table --tag know them.")
    ],
    remove: Annotated[
        bool, typer.Option("--remove", help="The tag is taken from the evaluations.")
    ] = False,
    db: Db = None,
) -> None:
    """Give evaluations a name of your own."""
    from rilbench.ledger import Ledger
    from rilbench.ledger.housekeeping import chosen, tag

    with Ledger(_existing(db)) as ledger:
        tag(ledger, chosen(ledger, numbers), name, remove=remove)
        for number, evaluation in chosen(ledger, numbers).items():
            typer.echo(_line(number, evaluation))


def _existing(db: Path | None) -> Path:
    """Return the path of a ledger that exists.

    Raises:
        UserError: it does not, or it is no ledger.
    """
    from rilbench.ledger import Ledger, default_db

    path = default_db(db)
    Ledger.open_read(path, required=True).close()
    return path


def _line(number: int, found: Evaluation | str) -> str:
    """Return a line about an evaluation; ``found`` says what is wrong if it is damaged."""
    from rilbench.printable import printable

    if isinstance(found, str):
        return printable(f"evaluation {number}: damaged ({found})")
    tags = f" [{', '.join(found.tags)}]" if found.tags else ""
    labels = f"{found.student} {found.method} {found.teacher}, {found.suite}, {found.created[:16]}"
    return printable(
        f"evaluation {number}{tags}: {labels}, {len(found.scores)} scores, {found.path}"
    )
