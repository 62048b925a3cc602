"""``rilbench nano`` and ``lab``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.errors import UserError
from rilbench.extras import require

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

nano_app = typer.Typer(help="Small models and synthetic benchmarks.", no_args_is_help=True)
lab_app = typer.Typer(help="Experiments on the small models (docs/lab.md).", no_args_is_help=True)


@nano_app.command(name="build")
def nano_build(
    out: Annotated[Path, typer.Option(help="Folder for the models and data.")] = Path("nano"),
) -> None:
    """Build the small models, questions and benchmarks from their seeds (about 20 minutes)."""
    require("lab", "rilbench nano build")
    from rilbench.nano.build import build
    from rilbench.progress import CountProgress

    with CountProgress() as progress:
        build(out, progress.report)
    typer.echo(f"built in {out}; use it with: export RILBENCH_NANO={out.resolve()}")


@lab_app.command(name="run")
def lab_run(
    file: Annotated[
        str,
        typer.Argument(
            help="Experiment file, or grid, pilot, headline, regimes, ablations, replication, verl."
        ),
    ],
    workers: Annotated[int, typer.Option(help="Number of parallel runs, one core each.")] = 2,
    minutes: Annotated[
        Optional[float], typer.Option(help="Minutes after which no further run starts.")
    ] = None,
) -> None:
    """Run an experiment, or the rest of it; results of finished runs are in results/nano/runs."""
    require("lab", "rilbench lab run")
    from rilbench.lab.experiment import read_experiment
    from rilbench.lab.progress import LabProgress
    from rilbench.lab.scheduler import run_experiment
    from rilbench.resources import resource

    path = Path(file)
    if not path.suffix and not path.exists():
        known = {found.stem: found for found in sorted(resource("recipes/lab").glob("*.yaml"))}
        if file not in known:
            raise UserError(
                f"unknown experiment {file!r}; known: {', '.join(known)}; or give a YAML file"
            )
        path = known[file]
    with LabProgress() as progress:
        jobs = run_experiment(read_experiment(path), progress, workers=workers, minutes=minutes)
    typer.echo(f"{jobs.before + jobs.done} runs are finished, {jobs.left} are left")


@lab_app.command(name="report")
def lab_report() -> None:
    """Write results/nano/README.md and its plots from the run results."""
    require("lab", "rilbench lab report")
    from rilbench.lab.report import write_report

    typer.echo(f"written: {write_report()}")


@lab_app.command(name="mechanisms")
def lab_mechanisms() -> None:
    """Measure who is rewarded for what in the recorded responses of runs here; for the report."""
    require("lab", "rilbench lab mechanisms")
    from rilbench.lab.lab_paths import LabPaths
    from rilbench.lab.mechanisms import measure_mechanisms

    typer.echo(f"written: {measure_mechanisms(LabPaths())}")


@lab_app.command(name="gate")
def lab_gate(
    update: Annotated[
        bool, typer.Option("--update", help="Calibration of new bounds, from several runs.")
    ] = False,
    reason: Annotated[
        Optional[str], typer.Option(help="Reason for the calibration; kept in the file.")
    ] = None,
    junit: Annotated[Optional[Path], typer.Option(help="JUnit XML file for the verdicts.")] = None,
) -> None:
    """Check one short run of RIL against its bounds in results/baseline.json; exit 1 if worse."""
    require("lab", "rilbench lab gate")
    from rilbench.cli.check import say_update, show
    from rilbench.lab.lab_paths import LabPaths
    from rilbench.lab.progress import LabProgress
    from rilbench.lab.regression_gate import run_gate, update_gate

    if update != (reason is not None):
        raise UserError("--update needs a reason, and only --update takes one: --reason TEXT")
    with LabProgress() as progress:
        if update:
            done = update_gate(progress, reason or "")
        else:
            verdicts = run_gate(progress)
    if update:
        say_update(done, LabPaths().baseline)
    else:
        show(verdicts, junit)
