"""The command line: parse the options, call one function, print the result.

A command imports what it needs when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import errno
import io
import sys
import warnings
from typing import Annotated, Any

import typer

from rilbench import __version__
from rilbench.cli.check import check
from rilbench.cli.data import data_app
from rilbench.cli.doctor import doctor
from rilbench.cli.eval import evaluate, kits_app
from rilbench.cli.export import export
from rilbench.cli.import_results import import_
from rilbench.cli.lab import lab_app, nano_app
from rilbench.cli.ledger import ledger_app
from rilbench.cli.plan import plan
from rilbench.cli.push import push
from rilbench.cli.report import report
from rilbench.cli.results import compare, show, table
from rilbench.cli.run import run
from rilbench.cli.train import train
from rilbench.cli.view import view
from rilbench.cli.watch import watch
from rilbench.errors import UserError, UserNotice
from rilbench.extras import explain_missing
from rilbench.logs import configure
from rilbench.printable import printable

_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "check its permissions, or give another place",
    errno.EROFS: "give another place",
    errno.EEXIST: "a file has the name of a folder; give another place",
    errno.EISDIR: "a folder has the name of a file; give another place",
    errno.ENOTDIR: "a file has the name of a folder; give another place",
    errno.ENOTEMPTY: "the folder is not empty; give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its links lead back to themselves; give another place",
    errno.EIO: "check the disk, or the network to it",
}
"""Errors of the file system that a user can fix. Any other OSError is a bug, with a traceback."""

app = typer.Typer(
    name="rilbench",
    help="RIL for vision-language models: train a small student with its teachers, evaluate it on "
    "benchmarks, and compare its scores with the paper's.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(train)
app.command()(watch)
app.command()(plan)
app.command(name="eval")(evaluate)
app.command()(table)
app.command()(compare)
app.command()(report)
app.command()(view)
app.command()(show)
app.command()(push)
app.command()(check)
app.command()(doctor)
app.command(name="import")(import_)
app.command()(export)
app.add_typer(data_app, name="data")
app.add_typer(ledger_app, name="ledger")
app.add_typer(kits_app, name="kits")
app.add_typer(nano_app, name="nano")
app.add_typer(lab_app, name="lab")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rilbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Version of rilbench."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log of what is being done, on standard error.")
    ] = False,
) -> None:
    """Options of the program itself."""
    configure(verbose=verbose)


def main() -> None:
    """Run the command line; a user's error is one line on standard error and exit status 1."""
    default_showwarning = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
        if issubclass(category, UserNotice):
            typer.echo(printable(f"rilbench: {message}"), err=True)
        else:
            default_showwarning(message, category, *args, **kwargs)

    warnings.showwarning = show
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of few letters shows "?" for others
    try:
        app()
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        remedy = explain_missing(error)
        if remedy is None:
            raise
        message = remedy
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        file = error.filename2 or error.filename  # A rename has two; the user gave the second.
        place = f"{file}: " if file else ""
        message = f"{place}{error.strerror}; {_REMEDIES[error.errno]}, then run again"
    else:
        return
    typer.echo(printable(f"rilbench: {message}"), err=True)
    sys.exit(1)
