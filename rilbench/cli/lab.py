"""``rilbench nano`` and ``lab``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from rilbench.errors import UserError

# ruff: noqa: UP045  Typer reads Optional on every Python that we support.

nano_app = typer.Typer(help="The laboratory: small models and benchmarks.", no_args_is_help=True)
lab_app = typer.Typer(help="The laboratory's experiments (docs/lab.md).", no_args_is_help=True)


@nano_app.command(name="build")
def nano_build(
    out: Annotated[Path, typer.Option(help="Where to put models and data.")] = Path("nano"),
) -> None:
    """Build the laboratory from its seeds: models, questions, benchmarks (about 20 minutes)."""
    from rilbench.nano.build import build
    from rilbench.nano.progress import BuildView

    with BuildView() as view:
        build(out, view.report)
    typer.echo(f"built in {out}; use it with: export RILBENCH_NANO={out.resolve()}")


@lab_app.command(name="run")
def lab_run(
    file: Annotated[
        str, typer.Argument(help="An experiment file, or grid, headline, ablations, longer.")
    ],
    lanes: Annotated[int, typer.Option(help="Runs at a time; each takes one core.")] = 2,
    minutes: Annotated[
        Optional[float], typer.Option(help="Start no run after so many minutes.")
    ] = None,
) -> None:
    """Run an experiment, or what is left of it; finished runs stand in results/nano/rows."""
    from rilbench.lab.experiment import read_experiment
    from rilbench.lab.progress import LabView
    from rilbench.lab.scheduler import run_experiment
    from rilbench.resources import resource

    path = Path(file)
    if not path.suffix and not path.exists():
        path = resource("recipes/lab") / f"{file}.yaml"
    with LabView(lanes=lanes) as view:
        outcome = run_experiment(read_experiment(path), view, lanes=lanes, minutes=minutes)
    typer.echo(f"{outcome.before + outcome.done} runs are finished, {outcome.left} are left")


@lab_app.command(name="report")
def lab_report() -> None:
    """Write results/nano/README.md and its figures from the rows."""
    from rilbench.lab.report import write_report

    typer.echo(f"written: {write_report()}")


@lab_app.command(name="styles")
def lab_styles() -> None:
    """Measure what the teachers' style is worth to each model before training; for the report."""
    from rilbench.lab.lab_paths import Places
    from rilbench.lab.style_probe import measure_styles

    typer.echo(f"written: {measure_styles(Places(), typer.echo)}")


@lab_app.command(name="gate")
def lab_gate(
    update: Annotated[
        bool, typer.Option("--update", help="Calibrate the bounds anew, from several runs.")
    ] = False,
    reason: Annotated[
        Optional[str], typer.Option(help="Why they are calibrated; kept in the file.")
    ] = None,
    junit: Annotated[
        Optional[Path], typer.Option(help="Write the verdicts here, as JUnit XML.")
    ] = None,
) -> None:
    """Check one short run of RIL against its bounds in results/baseline.json; exit 1 if worse."""
    from rilbench.cli.check import say_update, show
    from rilbench.lab.lab_paths import Places
    from rilbench.lab.progress import LabView
    from rilbench.lab.regression_gate import run_gate, update_gate

    if update != (reason is not None):
        raise UserError("bounds are written with a reason: --update --reason TEXT, both or none")
    with LabView() as view:
        if update:
            done = update_gate(view, reason or "")
        else:
            verdicts = run_gate(view)
    if update:
        say_update(done, Places().baseline)
    else:
        show(verdicts, junit)
