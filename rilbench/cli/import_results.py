"""``rilbench import``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Benchmarks, Db, print_table
from rilbench.errors import UserError
from rilbench.printable import printable

if TYPE_CHECKING:
    from rilbench.importers.to_ledger import Imported
    from rilbench.lab.to_ledger import FoundResults

_NOTHING = (
    "has no result that can be imported; give the folder that a kit wrote to, such as "
    "outputs/MODEL of VLMEvalKit, or the output path of lmms-eval"
)

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def import_(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the results of a kit or of the nano sandbox.")
    ],
    student: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Student label in the table, or MODEL=LABEL for each of several models, "
            "repeatable; default: the kit's name."
        ),
    ] = None,
    method: Annotated[
        Optional[str], typer.Option(help="Training method label; default base, untrained.")
    ] = None,
    teacher: Annotated[Optional[str], typer.Option(help="Teacher label; default none.")] = None,
    suite: Annotated[
        Optional[str], typer.Option(help="Benchmark suite: paper (default) or nano.")
    ] = None,
    benchmarks: Benchmarks = "",
    split: Annotated[
        Optional[str],
        typer.Option(help="Split of the nano sandbox's results: test (default) or dev."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would be imported and stop.")] = False,
    db: Db = None,
) -> None:
    """Read results of VLMEvalKit, lmms-eval or the nano sandbox into the ledger."""
    from rilbench.evaluate.suite import find_suite
    from rilbench.importers.folder import files_below, read_folder
    from rilbench.importers.to_ledger import read_labels, record
    from rilbench.lab.to_ledger import find_results, record_results
    from rilbench.ledger import Ledger, default_db

    given = {"student": student, "method": method, "teacher": teacher, "suite": suite}
    given |= {"benchmarks": benchmarks, "split": split}
    suite, split = "paper" if suite is None else suite, "test" if split is None else split
    chosen = find_suite(suite, benchmarks, kit="")
    path, files = default_db(db), files_below(folder)
    sandbox = find_results(files, split)
    _refuse_ignored(folder, sandbox, given)
    kits = read_folder(files, chosen, sandbox.files)
    method, teacher = "base" if method is None else method, "none" if teacher is None else teacher
    labels = read_labels(student or (), method, teacher, kits.models)
    for skipped in sorted([*kits.skipped, *sandbox.skipped], key=lambda skipped: skipped.file):
        file = skipped.file
        name = file.relative_to(folder) if file.is_relative_to(folder) else file
        typer.echo(printable(f"skipped {name}: {skipped.why}"), err=True)
    if sandbox.left_out:
        other = "dev" if split == "test" else "test"
        typer.echo(f"{sandbox.left_out} {other} results are left out; use --split {other}")
    if not kits.models and not sandbox.rows:
        raise UserError(f"{folder} {_NOTHING}")
    with Ledger.open_read(path) if dry_run else Ledger(path) as ledger:
        done = record(kits.models, chosen, labels, ledger, write=not dry_run)
        new = 0 if dry_run else record_results(sandbox.rows, ledger)
    _show(done)
    if not sandbox.rows and not any(imported.evaluation.scores for imported in done):
        raise UserError(f"{folder} {_NOTHING}")
    if sandbox.rows:
        count = f"{len(sandbox.rows)} {split} results of the nano sandbox"
        typer.echo(count if dry_run else f"{count}: {new} evaluations are new")
    end = f"recorded in {path}; see it with: rilbench table"
    typer.echo("nothing was written" if dry_run else end)


def _refuse_ignored(folder: Path, sandbox: FoundResults, given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing for what a folder has.

    Raises:
        UserError: labels, a suite or benchmarks for the sandbox's results, which have their own; or
            a split for a kit's.
    """
    options = {f"--{name}": value for name, value in given.items() if value}
    if options.get("--suite") == "nano":  # That of the sandbox's results.
        del options["--suite"]
    split = options.pop("--split", None)
    if sandbox.rows and options:
        raise UserError(
            f"{folder} has results of the nano sandbox, which name model, method, suite and "
            f"benchmarks themselves; leave out {', '.join(options)}, or give a kit's folder"
        )
    if split and not sandbox.files:
        raise UserError(
            f"--split is for results of the nano sandbox, and {folder} has none; leave it out"
        )


def _show(done: list[Imported]) -> None:
    """Print the imported evaluations, then the notes on them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("model", "kit", "benchmarks", "questions", ""):
        table.add_column(head, justify="right" if head == "questions" else "left", overflow="fold")
    for imported in done:
        scores = imported.evaluation.scores
        if not scores:
            continue
        values = [
            f"{s.benchmark} {'-' if s.value is None else format(s.value, '.1f')}" for s in scores
        ]
        new = "new" if imported.evaluation.id is not None else ""
        cells = (
            imported.evaluation.student,
            ", ".join(sorted({f"{score.kit} {score.kit_version}" for score in scores})),
            ", ".join(values),
            str(sum(score.questions for score in scores)),
            "known" if imported.known else new,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if table.rows:
        print_table(table)
    for imported in done:
        for note in imported.notes:
            typer.echo(printable(f"{imported.evaluation.student}: {note}"))
