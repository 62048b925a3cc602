"""``rilbench plan``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


class Format(str, Enum):
    """How a plan is printed."""

    rich = "rich"
    json = "json"


def plan(
    recipe: Annotated[str, typer.Option(help="72b, 78b or both: whose teachers.")] = "both",
    student: Annotated[
        Optional[str], typer.Option(help="The student; default qwen2.5-vl-7b.")
    ] = None,
    hardware: Annotated[
        Optional[str],
        typer.Option(help="The hardware profile; default 1x8-80gb, for nano cpu."),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="ril, imitation, teacher-rows, dr-grpo, grpo or sft; default ril."),
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. schedule.steps=100.")
    ] = None,
    assume: Annotated[
        Optional[list[str]], typer.Option(help="An assumption, e.g. mfu=0.4; repeatable.")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="A table, or JSON in bytes and seconds.")
    ] = Format.rich,
) -> None:
    """What a run would need: memory, step time, GPU-hours, disk, calls. Starts nothing."""
    from rilbench.config import load_recipe
    from rilbench.plan import make_plan
    from rilbench.plan.assumptions import assume as assumptions

    resolved = load_recipe(recipe, student, method, set_ or [], hardware)
    made = make_plan(resolved, assumptions(resolved, assume or []))
    if format_ is Format.json:
        import json

        typer.echo(json.dumps(made.as_dict(), indent=2))
        return
    from rilbench.cli.options import print_table
    from rilbench.plan.render import plan_view

    print_table(plan_view(made))
