"""``rilbench watch``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rilbench.errors import UserError


def watch(
    run: Annotated[str, typer.Argument(help="Run: its name, or its folder.")],
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs"),
) -> None:
    """Show a run that another process trains, or that has ended. Reads its files only."""
    from rich.console import Console

    from rilbench.config import read_recipe
    from rilbench.train.pipeline.progress import TrainingProgress
    from rilbench.train.pipeline.run_folder import Run
    from rilbench.train.pipeline.watch import watch as follow

    folder = runs / run if (runs / run).exists() else Path(run)
    if not (folder / "recipe.yaml").exists():
        raise UserError(
            f"{runs / run} is not a run; give the name of a folder in {runs}, or another --runs"
        )
    shown = Run(folder, read_recipe(folder / "recipe.yaml"))
    progress = TrainingProgress.of(Console(), shown)
    progress.is_silent = True
    with suppress(KeyboardInterrupt), progress:  # only the watching ends
        follow(shown, progress)
