"""``rilbench export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db, ledger_to_read

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def export(
    what: Annotated[str, typer.Argument(help="Table: scores, or samples (every answer).")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .csv or .parquet.")],
    evaluation: Annotated[
        Optional[list[str]],
        typer.Option(help="Evaluation, as in compare; repeatable; default: all."),
    ] = None,
    tag: Annotated[
        Optional[list[str]], typer.Option(help="Tag of evaluations (ledger tag); repeatable.")
    ] = None,
    benchmarks: Annotated[
        str, typer.Option(help="Benchmarks, such as AI2D,MMB; default: all.")
    ] = "",
    db: Db = None,
) -> None:
    """Write scores or samples to a CSV or Parquet file."""
    from rilbench.ledger import Ledger
    from rilbench.table.build import split_names, tagged
    from rilbench.table.export import export
    from rilbench.table.question_diff import find_evaluation

    with Ledger.open_read(ledger_to_read(db)) as ledger:
        evaluations = ledger.evaluations()[::-1]
        if tag:
            evaluations = tagged(evaluations, tag)
        if evaluation:
            wanted = {find_evaluation(ledger, name).id for name in evaluation}
            evaluations = [e for e in evaluations if e.id in wanted]
        count = export(ledger, what, out, evaluations, split_names(benchmarks))
    typer.echo(f"written: {out}, {count} {what} of {len(evaluations)} evaluations")
