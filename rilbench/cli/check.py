"""``rilbench check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Data, Db, ledger_to_read, print_table
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.check.compare import Verdict
    from rilbench.check.update import Update

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

_NAMED = 4
"""Reasons that the last line has; the table has all."""
JOB_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Set by GitHub Actions: the file whose Markdown the page of a job shows."""


def check(
    baseline: Annotated[Path, typer.Option(help="File with the bounds.")] = Path(
        "results/baseline.json"
    ),
    only: Annotated[
        Optional[list[str]],
        typer.Option(help="Part of the labels to compare, such as nano-format/ril; repeatable."),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(help="Checkpoint to evaluate first and to compare alone."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the baseline from the ledger.")
    ] = False,
    reason: Annotated[
        Optional[str], typer.Option(help="Reason for --update; kept in the file.")
    ] = None,
    junit: Annotated[
        Optional[Path], typer.Option(help="JUnit XML file to write the verdicts to.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="Output format: rich or json.")] = "rich",
    db: Db = None,
    data: Data = None,
    work: Annotated[
        Optional[Path],
        typer.Option(help="Folder for responses, with --model; default runs/eval."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask every question again, with --model.")
    ] = False,
) -> None:
    """Compare the newest evaluations with the baseline; exit 1 if one is worse, or is missing."""
    if format_ not in ("rich", "json"):
        raise UserError(f"unknown --format {format_}; use rich or json")
    if update != (reason is not None):
        raise UserError("a baseline is written with a reason: --update --reason TEXT, both or none")
    if update and (model or junit):
        raise UserError("--update writes the baseline and checks nothing; leave out the others")
    with_model = {"--data": data, "--work": work, "--fresh": fresh}
    if model is None and (given := [name for name, value in with_model.items() if value]):
        raise UserError(f"{', '.join(given)} is for --model, which evaluates; give both, or none")
    from rilbench.check.baseline import read_baseline
    from rilbench.check.compare import check_ledger
    from rilbench.ledger import Ledger, default_db

    path = default_db(db)
    if update:
        from rilbench.check.update import update_baseline
        from rilbench.evaluate.provenance import code_version

        with Ledger.open_read(ledger_to_read(db)) as ledger:
            done = update_baseline(ledger, baseline, reason or "", code_version(), only or [])
        say_update(done, baseline)
        return
    known = read_baseline(baseline)
    if model is None:
        if not path.exists():
            raise UserError(f"{path} does not exist; rilbench eval writes it")
        with Ledger.open_read(path) as ledger:
            verdicts = check_ledger(ledger, known, only or [])
    else:
        from rilbench.check.evaluate_model import check_model
        from rilbench.evaluate.progress import EvaluationProgress
        from rilbench.paths import locate

        with EvaluationProgress() as view:
            verdicts = check_model(
                locate(model, "--model"),
                known,
                only or [],
                view.report,
                work=work or Path("runs/eval"),
                db=path,
                data=data,
                fresh=fresh,
            )
    show(verdicts, junit, format_)


def show(verdicts: list[Verdict], junit: Path | None, format_: str = "rich") -> None:
    """Print the verdicts and write the JUnit file and, in GitHub Actions, the job's summary.

    Raises:
        UserError: a metric closes the gate, or the JUnit file cannot be written.
    """
    from rilbench.check.compare import NOT_EVALUATED, problems
    from rilbench.check.junit import write_junit
    from rilbench.check.render import append_job_summary, as_json, error_annotations, verdict_table

    if format_ == "json":
        typer.echo(as_json(verdicts))
    else:
        print_table(verdict_table(verdicts))
    if summary := os.environ.get(JOB_SUMMARY):
        try:
            append_job_summary(verdicts, Path(summary))
        except OSError as error:
            # The verdict counts more than where it is shown.
            typer.echo(f"note: no job summary, {summary}: {error.strerror}", err=True)
        # On standard error, which GitHub reads as well: --format json stays JSON.
        for line in error_annotations(verdicts):
            typer.echo(line, err=True)
    unwritten = ""
    if junit is not None:
        try:
            write_junit(verdicts, junit)
        except OSError as error:
            unwritten = f"no JUnit file, {junit}: {error.strerror}; give another --junit"
    if lines := problems(verdicts):
        closed = sum(not verdict.open for verdict in verdicts)
        more = f"; and {len(lines) - _NAMED} more, above" if len(lines) > _NAMED else ""
        said = "; ".join(lines[:_NAMED])
        if unwritten:
            typer.echo(f"note: {unwritten}", err=True)
        if any(verdict.why == NOT_EVALUATED for verdict in verdicts):
            more += "; evaluate it, or choose other entries with --only"
        raise UserError(f"{closed} of {len(verdicts)} metrics did not pass: {said}{more}")
    if format_ == "rich":
        passed = sum(verdict.state == "passed" for verdict in verdicts)
        unbounded = sum(verdict.state == "no bound" for verdict in verdicts)
        more = f"; {unbounded} have no bound and are not checked" if unbounded else ""
        typer.echo(f"passed: {passed} metrics are within their bounds{more}")
    if unwritten:
        raise UserError(unwritten)


def say_update(done: Update, path: Path) -> None:
    """Print what an update changed."""
    for note in done.notes:
        typer.echo(f"note: {note}", err=True)
    for label in done.changed:
        typer.echo(f"new bounds: {label}")
    entries = len(done.baseline.entries)
    state = "written" if done.changed else "nothing has changed"
    typer.echo(f"{state}: {path}, {entries} {'entry' if entries == 1 else 'entries'}")
