"""``rilbench doctor``."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

from rilbench.printable import printable

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

_SIGNS = {"ok": "✓", "missing": "·", "wrong": "✗"}


def doctor(
    recipe: Annotated[
        Optional[str], typer.Option(help="Recipe to check too: 72b, 78b or both.")
    ] = None,
    student: Annotated[Optional[str], typer.Option(help="Student of the recipe.")] = None,
    method: Annotated[Optional[str], typer.Option(help="Method of the recipe.")] = None,
    hardware: Annotated[
        Optional[str], typer.Option(help="Hardware profile of the recipe, such as 1-gpu-24gb.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="Setting of the recipe; repeatable.")
    ] = None,
    judge: Annotated[
        Optional[str], typer.Option(help="Judge that must answer, as [MODEL@]URL.")
    ] = None,
    endpoint: Annotated[
        Optional[list[str]],
        typer.Option(help="Server that must answer, as [MODEL@]URL; repeatable."),
    ] = None,
    format_: Annotated[
        Literal["rich", "json"], typer.Option("--format", help="Output format: rich or json.")
    ] = "rich",
) -> None:
    """Check this machine: what is installed, what is missing, what is wrong, and the remedy."""
    from rilbench.doctor import examine

    results = examine(recipe, student, method, hardware, set_ or [], judge, endpoint or [])
    if format_ == "json":
        import dataclasses
        import json

        typer.echo(json.dumps([dataclasses.asdict(result) for result in results], indent=2))
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            remedy = f"; {result.remedy}" if result.remedy else ""
            line = f"{_SIGNS[result.state]} {result.name:<{width}}  {result.found}{remedy}"
            typer.echo(printable(line))
    if any(result.state == "wrong" for result in results):
        raise typer.Exit(1)
