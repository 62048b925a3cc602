"""A stage's start and end, told to the user and to the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Shows a run to the user; see `rilbench.train.pipeline.progress`. Threads may share it."""

    def stage(self, name: str, state: str) -> None:
        """A stage starts (``running``), is ``done``, or was done before (``skipped``)."""

    def answers(self, model: str, done: int, total: int) -> None:
        """Number of responses collected so far from one model."""

    def note(self, text: str) -> None:
        """One line that the user should know before more is spent."""

    def line(self, kind: str, values: Mapping[str, Any]) -> None:
        """A new line of ``metrics.jsonl`` (kind ``ril``), of ``discriminator`` or of ``sft``.

        Or a ``note`` of the trainer.
        """


@contextmanager
def running(name: str, progress: Progress) -> Iterator[None]:
    """Tell that a stage runs while the body does it, and that it is done afterwards."""
    progress.stage(name, "running")
    log.info("%s: started", name)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        log.info("%s: stopped after %.1f s", name, time.monotonic() - started)
        raise
    log.info("%s: done in %.1f s", name, time.monotonic() - started)
    progress.stage(name, "done")


def skipped(name: str, progress: Progress) -> None:
    """Tell that a stage was done before."""
    log.info("%s: done before", name)
    progress.stage(name, "skipped")


def note(text: str, progress: Progress) -> None:
    """Tell the user something before more is spent."""
    log.info("note: %s", text)
    progress.note(text)
