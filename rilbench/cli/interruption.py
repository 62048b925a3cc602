"""Ctrl-C, and the signals of batch systems, in a training run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from rilbench.train.pipeline.run_folder import Run, last_step

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
def says_how_to_go_on(
    run: Run, how: str = "the same command with --resume goes on"
) -> Iterator[None]:
    """Say what is saved when the body is interrupted; SIGTERM and SIGHUP interrupt it too.

    The process then ends with status 128 plus the signal's number, as shells report it.
    """
    before = {number: signal.signal(number, _end) for number in _SIGNALS}
    try:
        yield
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, _EndedError) else signal.SIGINT
        step = last_step(run)
        saved = f"step {step} of {run.recipe.schedule.steps}" if step else "no step yet"
        name = signal.Signals(number).name
        typer.echo(
            f"rilbench: {run.folder} was stopped ({name}); saved is {saved}, and every response "
            f"that was collected; {how}",
            err=True,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        # Not `sys.exit`, which waits for the threads that collect. Their responses are on the disk,
        # and what we started ends with this process (`rilbench.processes`).
        os._exit(128 + number)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
