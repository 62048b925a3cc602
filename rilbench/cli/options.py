"""Options that several commands share, and how they print and write results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.errors import UserError
from rilbench.paths import whole_file

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

Data = Annotated[
    Optional[Path],
    typer.Option(
        "--data", help="Folder with the benchmarks' files; default ~/LMUData, for nano built in."
    ),
]
Benchmarks = Annotated[
    str,
    typer.Option(
        help="Benchmarks, such as MMStar,BLINK; paths of TOML files; or KIT:NAME, such as "
        "vlmevalkit:DocVQA_VAL; default the suite's 14."
    ),
]
Db = Annotated[
    Optional[Path],
    typer.Option("--db", help="Ledger file; default $RILBENCH_DB, else rilbench.db."),
]
Suite = Annotated[
    str, typer.Option("--suite", help="Benchmark suite: paper, or nano (synthetic stand-ins).")
]
Kit = Annotated[str, typer.Option("--kit", help="Evaluation toolkit: vlmevalkit or lmms-eval.")]
Set = Annotated[
    Optional[list[str]],
    typer.Option("--set", help="Setting as KEY=VALUE, such as policy.lr=1e-6; repeatable."),
]
RunName = Annotated[
    Optional[str],
    typer.Option("--run", help="Name of the run; default: its student, recipe and method."),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
Trackers = Annotated[
    Optional[list[str]],
    typer.Option(
        "--log",
        help="Tracker to log to as well: tensorboard, wandb, swanlab, mlflow, trackio, clearml, "
        "file or console; repeatable.",
    ),
]
Student = Annotated[
    Optional[str],
    typer.Option(
        "--student",
        help="Student: a name such as nano, a model's folder or hub name, or a YAML file; "
        "default qwen2.5-vl-7b.",
    ),
]


def ledger_to_read(db: Path | None) -> Path:
    """Return the ledger's path; one that nobody named need not exist, and is then empty.

    Raises:
        UserError: the file that ``--db`` or ``$RILBENCH_DB`` names does not exist.
    """
    from rilbench.ledger.database import DB_VARIABLE, default_db

    path = default_db(db)
    if not path.exists():
        if db is not None:
            raise UserError(f"{path} does not exist; rilbench eval writes it")
        if os.environ.get(DB_VARIABLE):
            raise UserError(
                f"{path}, which ${DB_VARIABLE} names, does not exist; rilbench eval writes it"
            )
    return path


def print_table(table: object) -> None:
    """Print a Rich table."""
    from rich.console import Console

    # Never cut to a window or a pipe: a number without its last digits is another number.
    Console(width=max(Console().width, 200)).print(table)


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: its folder does not exist, or it cannot be written.
    """
    try:
        with whole_file(path) as part:
            part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}); give another --out"
        ) from error
