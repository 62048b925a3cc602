"""Options that several verbs have, and how a table is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.errors import UserError

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


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: its folder is not there, or it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); give another --out"
        ) from error
