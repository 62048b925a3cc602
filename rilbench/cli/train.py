"""``rilbench train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Db, RunName, Runs, Trackers
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rilbench.config import Recipe

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.


def train(
    recipe: Annotated[str, typer.Option(help="Teachers: 72b, 78b or both; or a YAML file.")],
    student: Annotated[
        Optional[str],
        typer.Option(
            help="Student: qwen2.5-vl-7b (default), nano (needs no GPU), a model's folder, its hub "
            "name, or a YAML file."
        ),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(
            help="Method: ril (default), imitation, teacher-bonus, teacher-rows, dr-grpo, grpo, "
            "gad, opd or sft."
        ),
    ] = None,
    hardware: Annotated[
        Optional[str],
        typer.Option(help="Hardware profile; default 1x8-80gb, for nano cpu."),
    ] = None,
    run: RunName = None,
    runs: Runs = Path("runs"),
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", help="Setting, e.g. schedule.steps=100; repeatable."),
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed; short for --set seed=N.")] = None,
    steps: Annotated[
        Optional[int], typer.Option(help="Number of steps; short for --set schedule.steps=N.")
    ] = None,
    eval_every: Annotated[
        Optional[int],
        typer.Option(help="Steps between scores on the dev split (never on benchmarks)."),
    ] = None,
    log: Trackers = None,
    ray_address: Annotated[
        Optional[str],
        typer.Option(help="Address of an existing Ray cluster, e.g. auto; default: a local one."),
    ] = None,
    collect_only: Annotated[
        bool, typer.Option("--collect-only", help="Save the teachers' responses and stop.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Stop at questions that cannot be trained on; default: leave them out."
        ),
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse",
            help="Every stage once, two steps at the longest prompts and responses, and what they "
            "need; then stop.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option(help="Continue an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print the resolved recipe and stop.")] = False,
    db: Db = None,
) -> None:
    """Train a student by RIL: collect → sft → discriminator → ril → export."""
    from rilbench.config import load_recipe
    from rilbench.ledger import default_db
    from rilbench.plan import check_fit
    from rilbench.plan.assumptions import assume
    from rilbench.plan.servers import judge_line
    from rilbench.plan.teachers import teacher_lines
    from rilbench.train.pipeline.tracker_check import check_tracker_names

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
    check_tracker_names(log or [])
    if dry_run:
        from rilbench.data.manifest import with_manifests

        typer.echo(with_manifests(resolved).to_yaml(), nl=False)
        for line in teacher_lines(resolved, assume(resolved)):
            typer.echo(f"# collect {line}")
        if resolved.method_spec.is_rl:
            typer.echo(f"# {judge_line(resolved)}")
        return

    if run is not None and (Path(run).name != run or run.startswith(".")):
        raise UserError(
            f"--run {run} is not a name; give a name without a path, and its folder with --runs"
        )
    folder = runs / (run or f"{resolved.student.name}-{resolved.recipe}-{resolved.method}")

    from rilbench.extras import require

    require("train", "rilbench train")
    if rehearse:
        from rilbench.cli.rehearsal import show_rehearsal

        show_rehearsal(resolved, folder.with_name(f"{folder.name}-rehearsal"), strict=strict)
    else:
        _train(
            resolved,
            folder,
            default_db(db),
            log or [],
            resume=resume,
            collect_only=collect_only,
            strict=strict,
        )


def _train(
    recipe: Recipe,
    folder: Path,
    db: Path,
    trackers: list[str],
    *,
    resume: bool,
    collect_only: bool,
    strict: bool,
) -> None:
    """Start or continue the run in a folder, and show it."""
    from rich.console import Console

    from rilbench.cli.interruption import says_how_to_go_on
    from rilbench.train.pipeline import stages
    from rilbench.train.pipeline.ledger_summary import recorded
    from rilbench.train.pipeline.preflight import preflight
    from rilbench.train.pipeline.progress import TrainingProgress
    from rilbench.train.pipeline.run_folder import Run, open_run
    from rilbench.train.pipeline.tracker_check import check_trackers

    check_trackers(trackers)
    inputs = None
    if not resume and not folder.exists():
        inputs = preflight(Run(folder, recipe), collect_only=collect_only, strict=strict)
    run = open_run(folder, recipe, resume=resume)
    if run.finished:
        typer.echo(f"{folder} is finished ({recipe.fingerprint}): {run.checkpoint}")
        return
    if collect_only:
        with (
            says_how_to_go_on(run),
            TrainingProgress(Console(), f"collect: → {folder}", 0, folder, ["collect"]) as progress,
        ):
            stages.collect(run, progress, inputs, strict=strict)
        typer.echo("collected; to train, use --resume instead of --collect-only")
        return
    with says_how_to_go_on(run), recorded(run, db), TrainingProgress.of(Console(), run) as progress:
        checkpoint = stages.train(run, progress, trackers, inputs=inputs, strict=strict)
    typer.echo(f"the trained student is in {checkpoint}")
    typer.echo(f"evaluate it with: rilbench eval --model {checkpoint}")
