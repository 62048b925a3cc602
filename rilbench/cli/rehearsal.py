"""``rilbench train --rehearse``: runs the rehearsal and prints what it found."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from rilbench.config import Recipe
from rilbench.plan import make_plan
from rilbench.plan.assumptions import assume
from rilbench.rehearsal import STEPS, Rehearsal, rehearse
from rilbench.train.activity import PARTS
from rilbench.train.pipeline.progress import TrainingProgress
from rilbench.train.pipeline.progress_record import planned_stages
from rilbench.train.pipeline.progress_text import duration

_GIB = 2**30


def show_rehearsal(recipe: Recipe, folder: Path, *, strict: bool) -> None:
    """Rehearse a recipe and print the report.

    Raises:
        UserError: what would stop the run.
    """
    console = Console()
    title = f"rehearsal of {recipe.method}: {recipe.student.name} with {recipe.teacher_label}"
    shown = TrainingProgress(
        console, f"{title} → {folder}", STEPS, folder / "run", planned_stages(recipe)
    )
    with shown as progress:
        found = rehearse(recipe, folder, progress, strict=strict)
    for line in found.smaller:
        typer.echo(f"smaller than the run: {line}")
    typer.echo(
        f"every stage ran: {found.questions} questions, prompts of up to {found.longest_prompt} "
        f"tokens, responses of {found.recipe.data.max_response_tokens}"
    )
    console.print(_seconds(found))
    console.print(_memory(found))
    typer.echo(f"one saved step takes {found.step_bytes / _GIB:.2f} GiB on the disk")
    if found.step and not found.smaller:
        typer.echo(_against_plan(recipe, found))
    typer.echo(f"the report is in {folder / 'rehearsal.json'}; the run itself has not begun")


def _seconds(found: Rehearsal) -> Table:
    table = Table("part", "seconds", box=None, padding=(0, 2), header_style="dim")
    for name, seconds in found.seconds.items():
        table.add_row(f"stage {name}", f"{seconds:.1f}")
    timings = found.step.get("verl", {})
    for name, shown in PARTS.items():
        if (seconds := timings.get(f"timing_s/{name}")) is not None:
            table.add_row(f"  step {STEPS}: {shown}", f"{seconds:.1f}")
    if "seconds" in found.step:
        table.add_row(f"step {STEPS}", f"{found.step['seconds']:.1f}")
    return table


def _memory(found: Rehearsal) -> Table:
    table = Table("process", "peak memory (GiB)", box=None, padding=(0, 2), header_style="dim")
    for name, size in sorted(found.memory.items(), key=lambda item: -item[1]):
        if size > _GIB / 20:
            table.add_row("all at one time" if name == "all" else name, f"{size / _GIB:.2f}")
    gpu = found.step.get("verl", {}).get("perf/max_memory_reserved_gb")
    if found.recipe.hardware.device == "cuda" and gpu is not None:
        table.add_row("one GPU, reserved by torch", f"{gpu:.2f}")
    return table


def _against_plan(recipe: Recipe, found: Rehearsal) -> str:
    """One line: what `rilbench plan` expects of a step, and how long the run's steps will take."""
    step = make_plan(recipe, assume(recipe)).step
    seconds, steps = float(found.step["seconds"]), recipe.schedule.steps
    planned = f"; plan expects {step.total_seconds:.1f}" if step is not None else ""
    return (
        f"a step takes at most {seconds:.1f} seconds{planned}: {steps} steps take at most "
        f"{duration(steps * seconds)}"
    )
