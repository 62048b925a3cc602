"""``rilbench import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Db, print_table
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.importers.to_ledger import Imported

_NOTHING = (
    "has no result that can be imported; give the folder that a kit wrote to, such as "
    "outputs/MODEL of VLMEvalKit, or what lmms-eval was given as its output path"
)

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def import_(
    folder: Annotated[Path, typer.Argument(help="Where a kit, or the laboratory, wrote results.")],
    student: Annotated[
        Optional[str], typer.Option(help="The model's name in the table; default the kit's.")
    ] = None,
    method: Annotated[str, typer.Option(help="How it was trained; base is not at all.")] = "base",
    teacher: Annotated[str, typer.Option(help="By which teachers.")] = "none",
    suite: Annotated[str, typer.Option(help="Whose benchmarks they are, paper or nano.")] = "paper",
    split: Annotated[
        str, typer.Option(help="Which of the laboratory's rows, test or dev.")
    ] = "test",
    dry_run: Annotated[bool, typer.Option(help="Show what would be imported and stop.")] = False,
    db: Db = None,
) -> None:
    """Read results of VLMEvalKit, lmms-eval or the laboratory into the ledger."""
    from rilbench.evaluate.suite import find_suite
    from rilbench.importers.folder import files_below, read_folder
    from rilbench.importers.to_ledger import Labels, record
    from rilbench.lab.to_ledger import find_rows, record_rows
    from rilbench.ledger import Ledger, default_db

    chosen, labels, path = find_suite(suite), Labels(student, method, teacher), default_db(db)
    files = files_below(folder)
    rows = find_rows(files, split)
    found = read_folder(files, chosen, rows.files)
    for skipped in sorted([*found.skipped, *rows.skipped], key=lambda each: each.file):
        typer.echo(_one_line(f"skipped {_below(skipped.file, folder)}: {skipped.why}"), err=True)
    if rows.left_out:
        other = "dev" if split == "test" else "test"
        typer.echo(f"{rows.left_out} rows of {other} are left out; --split {other} is theirs")
    if not found.models and not rows.rows:
        raise UserError(f"{folder} {_NOTHING}")
    with Ledger.open_read(path) if dry_run else Ledger(path) as ledger:
        done = record(found.models, chosen, labels, ledger, write=not dry_run)
        made = 0 if dry_run else record_rows(rows.rows, ledger)
    _show(done)
    if not rows.rows and not any(each.evaluation.scores for each in done):
        raise UserError(f"{folder} {_NOTHING}")
    if rows.rows:
        count = f"{len(rows.rows)} rows of the laboratory's {split}"
        typer.echo(count if dry_run else f"{count}: {made} evaluations are new")
    end = f"recorded in {path}; see it with: rilbench table"
    typer.echo("nothing was written" if dry_run else end)


def _show(done: list[Imported]) -> None:
    """What was imported, and under it what a reader should know."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("model", "kit", "columns", "questions", ""):
        table.add_column(head, justify="right" if head == "questions" else "left", overflow="fold")
    for each in (each for each in done if each.evaluation.scores):
        scores = each.evaluation.scores
        versions = sorted({f"{score.kit} {score.kit_version}" for score in scores})
        values = [
            f"{s.benchmark} {'-' if s.value is None else format(s.value, '.1f')}" for s in scores
        ]
        state = "known" if each.known else ("new" if each.evaluation.id is not None else "")
        cells = (each.evaluation.student, ", ".join(versions), ", ".join(values))
        count = str(sum(score.questions for score in scores))
        table.add_row(*[Text(cell) for cell in (*cells, count, state)])
    if table.rows:
        print_table(table)
    for each in done:
        for note in each.notes:
            typer.echo(_one_line(f"{each.evaluation.student}: {note}"))


def _below(file: Path, folder: Path) -> Path:
    return file.relative_to(folder) if file.is_relative_to(folder) else file


def _one_line(text: str) -> str:
    return "".join(mark if mark.isprintable() else "?" for mark in text)
