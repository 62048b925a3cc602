"""Options that several verbs have, and how a table is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

Data = Annotated[
    Optional[Path],
    typer.Option(
        "--data", help="Folder with the data files; default the laboratory's, or ~/LMUData."
    ),
]
Db = Annotated[
    Optional[Path],
    typer.Option("--db", help="The ledger; default $RILBENCH_DB, else rilbench.db here."),
]


def print_table(table: object) -> None:
    """Print a table of rich's."""
    from rich.console import Console

    # Never cut to a window or a pipe: a number without its last digits is another number.
    Console(width=max(Console().width, 200)).print(table)
