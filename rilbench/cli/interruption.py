"""Ctrl-C, and the signals of batch systems, in a training run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from rilbench.train.pipeline.run_folder import Run, saved_steps

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _EndedError(KeyboardInterrupt):
    """A signal that asks the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _end(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough, and what follows may not be cut short
    raise _EndedError(number)


@contextmanager
def says_how_to_go_on(run: Run) -> Iterator[None]:
    """Say what is saved when the body is interrupted; SIGTERM and SIGHUP interrupt it too.

    Raises:
        typer.Exit: with 128 plus the signal's number, as shells do.
    """
    before = {number: signal.signal(number, _end) for number in _SIGNALS}
    try:
        yield
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, _EndedError) else signal.SIGINT
        step = max(saved_steps(run), default=0)
        saved = f"step {step} of {run.recipe.schedule.steps}" if step else "no step yet"
        name = signal.Signals(number).name
        typer.echo(
            f"rilbench: {run.folder} was stopped ({name}); saved is {saved}, and every response "
            "that was collected; the same command with --resume goes on",
            err=True,
        )
        raise typer.Exit(128 + number) from error
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
