"""``rilbench check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Data, Db, print_table
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.check.compare import Verdict

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def check(
    baseline: Annotated[Path, typer.Option(help="The file with the bounds.")] = Path(
        "results/baseline.json"
    ),
    only: Annotated[
        Optional[list[str]],
        typer.Option(help="Only entries with this in their label, such as nano/ril; repeatable."),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(help="Evaluate this checkpoint first, and compare it alone."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline from the ledger.")
    ] = False,
    reason: Annotated[Optional[str], typer.Option(help="Why; kept in the file.")] = None,
    junit: Annotated[
        Optional[Path], typer.Option(help="Write the verdicts here, as JUnit XML.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="rich or json.")] = "rich",
    db: Db = None,
    data: Data = None,
    work: Annotated[Path, typer.Option(help="Folder for answers, with --model.")] = Path(
        "runs/eval"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask every question anew, with --model.")
    ] = False,
) -> None:
    """Compare the newest evaluations with the baseline; exit 1 if one is worse, or is missing."""
    if format_ not in ("rich", "json"):
        raise UserError(f"--format {format_} is not known; use rich or json")
    if update != (reason is not None):
        raise UserError("a baseline is written with a reason: --update --reason TEXT, both or none")
    if update and (model or junit):
        raise UserError("--update writes the baseline and checks nothing; leave out the others")
    if update:
        _update(baseline, reason or "", only or [], db)
        return
    from rilbench.check.baseline import read_baseline
    from rilbench.check.compare import check_ledger
    from rilbench.ledger import Ledger, default_db

    known, path = read_baseline(baseline), default_db(db)
    if model is None:
        if not path.exists():
            raise UserError(f"{path} does not exist; rilbench eval writes it")
        with Ledger.open_read(path) as ledger:
            verdicts = check_ledger(ledger, known, only or [])
    else:
        from rilbench.check.evaluate_model import How, check_model
        from rilbench.evaluate.progress import EvaluationProgress
        from rilbench.paths import locate

        how = How(work, path, data, fresh)
        with EvaluationProgress() as view:
            verdicts = check_model(locate(model), known, how, tuple(only or ()), view.report)
    show(verdicts, junit, format_)


def show(verdicts: list[Verdict], junit: Path | None, format_: str = "rich") -> None:
    """Print the verdicts, write the JUnit file, and end with what closes the gate.

    Raises:
        UserError: something does.
    """
    from rilbench.check.compare import problems
    from rilbench.check.junit import write_junit
    from rilbench.check.render import as_json, verdict_table

    if junit is not None:
        write_junit(verdicts, junit)
    if format_ == "json":
        typer.echo(as_json(verdicts))
    else:
        print_table(verdict_table(verdicts))
    if found := problems(verdicts):
        closed = sum(not each.open for each in verdicts)
        raise UserError(
            f"the gate is closed by {closed} of {len(verdicts)} cells: {'; '.join(found)}"
        )
    if format_ == "rich":
        typer.echo(f"the gate is open: {len(verdicts)} cells are within their bounds")


def _update(baseline: Path, reason: str, only: list[str], db: Path | None) -> None:
    from rilbench.check.update import update_baseline
    from rilbench.evaluate.provenance import code_version
    from rilbench.ledger import Ledger, default_db

    with Ledger.open_read(default_db(db)) as ledger:
        say_update(update_baseline(ledger, baseline, reason, code_version(), only), baseline)


def say_update(done: object, path: Path) -> None:
    """Say what an update did."""
    from rilbench.check.update import Update

    assert isinstance(done, Update)
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    for label in done.changed:
        typer.echo(f"new bounds: {label}")
    entries = len(done.baseline.entries)
    state = "written" if done.changed else "nothing has changed"
    typer.echo(f"{state}: {path}, {entries} {'entry' if entries == 1 else 'entries'}")
