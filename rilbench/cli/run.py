"""``rilbench run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rilbench.cli.options import Db, RunName, Runs, Trackers
from rilbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rilbench.config.run_file import RunFile
    from rilbench.evaluate.options import EvalOptions
    from rilbench.whole_run.plan import WholePlan

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

_AGAIN = "the same command goes on"


def run(
    file: Annotated[
        str, typer.Argument(help="Run file: a name in recipes/runs (nano, paper), or a YAML file.")
    ],
    recipe: Annotated[
        Optional[str], typer.Option(help="Teachers, instead of the file's: 72b, 78b or both.")
    ] = None,
    student: Annotated[
        Optional[str], typer.Option(help="Student, instead of the file's; as in rilbench train.")
    ] = None,
    method: Annotated[Optional[str], typer.Option(help="Method, instead of the file's.")] = None,
    hardware: Annotated[
        Optional[str], typer.Option(help="Hardware profile, instead of the file's.")
    ] = None,
    name: RunName = None,
    runs: Runs = Path("runs"),
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", help="Setting, e.g. judge.url=URL or eval.judge=MODEL@URL; repeatable."
        ),
    ] = None,
    log: Trackers = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at questions that cannot be trained on.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Plan of every stage: sources, servers, sizes, hours; then stop.")
    ] = False,
    db: Db = None,
) -> None:
    """Do a whole experiment: data → collect → sft → discriminator → ril → export → eval → table.

    Given again, it goes on where it stopped.
    """
    from rich.console import Console

    from rilbench.config.run_file import read_run_file
    from rilbench.extras import require
    from rilbench.ledger import default_db
    from rilbench.train.pipeline.tracker_check import check_tracker_names
    from rilbench.whole_run.plan import evaluation_options, plan_whole_run, what_is_missing

    names = {"recipe": recipe, "student": student, "method": method, "hardware": hardware}
    read = read_run_file(file, {**names, "run": name}, set_ or [])
    if Path(read.run).name != read.run or read.run.startswith("."):
        raise UserError(f"run: {read.run} is not a name; give its folder with --runs")
    folder = runs / read.run
    options = evaluation_options(read, default_db(db))
    check_tracker_names(log or [])
    if dry_run:
        typer.echo(f"rilbench run {file}: {read.recipe.student.name} with "
                   f"{read.recipe.teacher_label} by {read.recipe.method} → {folder}")  # fmt: skip
        Console().print(_plan_view(plan_whole_run(read, options)))
        return

    from rilbench.plan import check_fit

    require("train", "rilbench run")
    from rilbench.train.pipeline.tracker_check import check_trackers

    options.chosen()
    check_fit(read.recipe)
    check_trackers(log or [])
    missing = [] if folder.exists() else what_is_missing(read.recipe, options)
    if missing:
        raise UserError(missing[0])
    _build_data(read)
    try:
        _show(read, folder, options, log or [], strict=strict)
    except UserError as error:
        if "--resume" not in str(error):
            raise
        raise UserError(f"{error} (with rilbench run: give the same command again)") from error
    from rilbench.cli.results import table

    table(db=db)


def _build_data(read: RunFile) -> None:
    """Build the training sets that the file names recipes of, unless they are built."""
    from rilbench.cli.data import build_training_set
    from rilbench.data.build_recipe import read_data_recipe
    from rilbench.data.manifest import manifest_beside, whole_of

    benchmarks = read.evaluation.get("data")
    for out, name in read.data.items():
        recipe, manifest = read_data_recipe(name), manifest_beside(out)
        if out.exists() and manifest:
            if manifest.values.get("recipe_fingerprint") != recipe.fingerprint:
                raise UserError(
                    f"{out} was built by another recipe than {name} is now; move it away to build "
                    "it again"
                )
            continue
        whole = whole_of(out)
        if whole != out and not recipe.dev:
            raise UserError(
                f"data.dev: {name} holds out no questions; set dev: 500 in it, or give another file"
            )
        folder = Path(benchmarks) if benchmarks else None
        build_training_set(recipe, whole, folder, read.recipe)


def _show(
    read: RunFile, folder: Path, options: EvalOptions, trackers: list[str], *, strict: bool
) -> None:
    """Do the experiment on one screen, then print the scores."""
    from rich.console import Console, Group

    from rilbench.cli.interruption import says_how_to_go_on
    from rilbench.cli.score_report import print_scores
    from rilbench.evaluate.progress import EvaluationProgress
    from rilbench.plan import make_plan
    from rilbench.plan.assumptions import assume
    from rilbench.train.pipeline.progress import TrainingProgress
    from rilbench.train.pipeline.run_folder import Run
    from rilbench.whole_run.execute import train_and_evaluate
    from rilbench.whole_run.plan import whole_hours, whole_stages

    bars = EvaluationProgress()

    class Screen(TrainingProgress):
        """The training, and below it the bars of the evaluation."""

        def render(self) -> RenderableType:
            return Group(super().render(), bars.bars) if bars.tasks else super().render()

    shown = Run(folder, read.recipe)
    try:
        hours = whole_hours(make_plan(read.recipe, assume(read.recipe)), options)
    except UserError:  # a student that plan cannot count
        hours = {}
    screen = Screen.of(Console(), shown, whole_stages(read.recipe), hours)
    with says_how_to_go_on(shown, _AGAIN), screen:
        evaluations = train_and_evaluate(
            read, folder, options, screen, bars.report, trackers, strict=strict
        )
        screen.stage("table", "done")
    for evaluation in evaluations:
        print_scores(evaluation)


def _plan_view(plan: WholePlan) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from rilbench.plan.numbers import short
    from rilbench.train.pipeline.progress_text import duration

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    for stage in plan.stages:
        time = "" if stage.hours is None else duration(3600 * stage.hours)
        table.add_row(stage.name, Text("\n".join(stage.what)), time)
    total = duration(3600 * sum(stage.hours or 0.0 for stage in plan.stages))
    table.add_row("total", f"{short(plan.gpu_hours)} device-hours", total, style="bold")
    parts: list[RenderableType] = [table, Text(f"disk: {plan.disk}")]
    parts += [Text(f"note: {line}", style="cyan") for line in plan.notes]
    parts += [Text(f"missing: {line}", style="yellow") for line in plan.missing]
    parts += [Text(f"missing here: {line}", style="yellow") for line in plan.missing_here]
    return Group(*parts)
