"""``rilbench doctor``."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

_SIGNS = {"ok": "✓", "missing": "·", "wrong": "✗"}


def doctor(
    recipe: Annotated[
        Optional[str], typer.Option(help="Also check what this recipe needs: 72b, 78b or both.")
    ] = None,
    student: Annotated[Optional[str], typer.Option(help="The recipe's student.")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting of the recipe; repeatable.")
    ] = None,
    judge: Annotated[
        Optional[str], typer.Option(help="[MODEL@]URL of a judge that must answer.")
    ] = None,
    endpoint: Annotated[
        Optional[list[str]],
        typer.Option(help="[MODEL@]URL of a server that must answer; repeatable."),
    ] = None,
    format_: Annotated[
        Literal["rich", "json"], typer.Option("--format", help="rich or json.")
    ] = "rich",
) -> None:
    """Check this machine: what is there, what is missing, and what is wrong with its remedy."""
    from rilbench.doctor import examine

    found = examine(recipe, student, set_ or [], judge, endpoint or [])
    if format_ == "json":
        import dataclasses
        import json

        typer.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            remedy = f"; {each.remedy}" if each.remedy else ""
            typer.echo(f"{_SIGNS[each.state]} {each.name:<{width}}  {each.found}{remedy}")
    if any(each.state == "wrong" for each in found):
        raise typer.Exit(1)
