"""``rilbench plan``."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def plan(
    recipe: Annotated[
        str, typer.Option(help="Recipe, by its teachers: 72b, 78b or both.")
    ] = "both",
    student: Annotated[Optional[str], typer.Option(help="Student; default: qwen2.5-vl-7b.")] = None,
    hardware: Annotated[
        Optional[str],
        typer.Option(help="Hardware profile; default: 1x8-80gb, and cpu for nano students."),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="Method, as of rilbench train; default: ril."),
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="Setting, such as schedule.steps=100; repeatable."),
    ] = None,
    assume: Annotated[
        Optional[list[str]], typer.Option(help="Assumption, such as mfu=0.4; repeatable.")
    ] = None,
    format_: Annotated[
        Literal["rich", "json"],
        typer.Option("--format", help="Output format: rich, or json in bytes and seconds."),
    ] = "rich",
) -> None:
    """Estimate memory, step time, GPU-hours, disk and calls of a run. Starts nothing."""
    from rilbench.config import load_recipe
    from rilbench.plan import make_plan
    from rilbench.plan.assumptions import assume as assumptions

    resolved = load_recipe(recipe, student, method, set_ or [], hardware)
    made = make_plan(resolved, assumptions(resolved, assume or []))
    if format_ == "json":
        import json

        typer.echo(json.dumps(made.as_dict(), indent=2))
        return
    from rich.console import Console

    from rilbench.plan.render import plan_view

    # Lines are not broken: a command line can be copied.
    Console().print(plan_view(made), soft_wrap=True)
