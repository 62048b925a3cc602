"""``rilbench train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.cli.options import Db

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def train(
    recipe: Annotated[str, typer.Option(help="72b, 78b or both: whose teachers; or a YAML file.")],
    student: Annotated[
        Optional[str],
        typer.Option(
            help="The student; default qwen2.5-vl-7b. nano needs no GPU. Or a model's folder, its "
            "hub name, or a YAML file."
        ),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="ril, imitation, teacher-rows, dr-grpo, grpo or sft; default ril."),
    ] = None,
    hardware: Annotated[
        Optional[str],
        typer.Option(help="The hardware profile; default 1x8-80gb, for nano cpu."),
    ] = None,
    run: Annotated[
        Optional[str], typer.Option("--run", help="Name of the run; default from the others.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where runs live.")] = Path("runs"),
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", help="A setting, e.g. schedule.steps=100.")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Short for --set seed=N.")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Short for --set schedule.steps=N.")] = None,
    eval_every: Annotated[
        Optional[int], typer.Option(help="Score the dev split every N steps (never benchmarks).")
    ] = None,
    log: Annotated[
        Optional[list[str]], typer.Option(help="Also log to tensorboard or wandb; repeatable.")
    ] = None,
    ray_address: Annotated[
        Optional[str],
        typer.Option(help="A Ray cluster that is there, such as auto; default one of the run's."),
    ] = None,
    collect_only: Annotated[
        bool, typer.Option("--collect-only", help="Save the teachers' responses and stop.")
    ] = False,
    resume: Annotated[bool, typer.Option(help="Continue an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved recipe and stop.")] = False,
    db: Db = None,
) -> None:
    """Train a student by RIL: collect → sft → discriminator → ril → export."""
    from rilbench.config import load_recipe
    from rilbench.plan import check_fit

    overrides = list(set_ or [])
    shorthands: dict[str, object] = {
        "seed": seed,
        "schedule.steps": steps,
        "schedule.eval_every": eval_every,
        "hardware.ray_address": ray_address,
    }
    overrides += [f"{key}={value}" for key, value in shorthands.items() if value is not None]
    resolved = load_recipe(recipe, student, method, overrides, hardware)
    check_fit(resolved)
    if dry_run:
        typer.echo(resolved.to_yaml(), nl=False)
        return
    from rilbench.ledger import default_db
    from rilbench.train.pipeline import stages as stages

    stages.check_trackers(log or [])
    name = run or f"{resolved.student.name}-{resolved.recipe}-{resolved.method}"
    if not resume and not (runs / name).exists():
        (stages.check_inputs if collect_only else stages.check_recipe)(resolved)
    opened = stages.open_run(runs / name, resolved, resume=resume)
    if opened.finished:
        typer.echo(f"{runs / name} is finished ({resolved.fingerprint}): {opened.checkpoint}")
        return
    if collect_only:
        _collect(opened)
    else:
        _train(opened, log or [], default_db(db))


def _collect(run: object) -> None:
    from rich.console import Console

    from rilbench.train.pipeline import stages as stages
    from rilbench.train.pipeline.progress import TrainingProgress

    assert isinstance(run, stages.Run)
    with TrainingProgress(Console(), f"collect: → {run.folder}", 0) as view:
        stages.collect(run, view)
    typer.echo("collected; the same command with --resume and without --collect-only goes on")


def _train(run: object, trackers: list[str], db: Path) -> None:
    from rich.console import Console

    from rilbench.train.pipeline import stages as stages
    from rilbench.train.pipeline.ledger_summary import recorded
    from rilbench.train.pipeline.progress import TrainingProgress

    assert isinstance(run, stages.Run)
    recipe = run.recipe
    title = f"{recipe.method}: {recipe.student.name} with {recipe.teacher_label} → {run.folder}"
    with recorded(run, db), TrainingProgress(Console(), title, recipe.schedule.steps) as view:
        checkpoint = stages.train(run, view, trackers)
    typer.echo(f"the trained student is in {checkpoint}")
    typer.echo(f"evaluate it with: rilbench eval --model {checkpoint}")
