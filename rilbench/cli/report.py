"""``rilbench report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db, ledger_to_read
from rilbench.errors import UserError

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Training runs, numbers of evaluations, or models; side by side."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path(
        "report.html"
    ),
    teacher: Annotated[
        Optional[list[str]],
        typer.Option(help="Model to show too, repeatable; default: the recipe's teachers."),
    ] = None,
    pictures: Annotated[
        float, typer.Option(help="Megabytes for pictures, which are scaled to fit.")
    ] = 12.0,
    db: Db = None,
) -> None:
    """Write an HTML page: scores, curves, and every question with its responses."""
    from rilbench.ledger import Ledger
    from rilbench.report.page import check_place, write_report
    from rilbench.report.report_data import gather

    if not 0 <= pictures <= 100:
        raise UserError(f"--pictures {pictures:g} is not between 0 and 100 megabytes")
    check_place(out)
    with Ledger.open_read(ledger_to_read(db)) as ledger:
        data = gather(ledger, runs, teacher or [])
    size = write_report(data, out, int(pictures * 1e6))
    typer.echo(f"written: {out} ({size / 1e6:.1f} MB)")
