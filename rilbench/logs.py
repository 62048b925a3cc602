"""Logging: quiet on the terminal, complete in a file of the run.

Modules log with ``logging.getLogger(__name__)``: what an operator needs afterwards, never a key.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import TextIOWrapper
from pathlib import Path

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
_logger = logging.getLogger("rilbench")
_current_file: ContextVar[Path] = ContextVar("current_file")


class _Stderr(logging.Handler):
    """Writes to the current `sys.stderr`, which a live display replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


class _File(logging.FileHandler):
    """Appends to a file, which is made with the first record."""

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        # A full disk is reported where a result cannot be written; a log must not stop anything.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def configure(*, verbose: bool = False) -> None:
    """Send warnings to standard error; with ``verbose`` also what is being done (INFO).

    A second call replaces the first.
    """
    for handler in [h for h in _logger.handlers if isinstance(h, _Stderr)]:
        _logger.removeHandler(handler)
    stderr = _Stderr(logging.INFO if verbose else logging.WARNING)
    stderr.setFormatter(_FORMAT)
    _logger.addHandler(stderr)
    _logger.setLevel(logging.DEBUG)  # the handlers decide what is written
    # verl gives the root logger a handler of its own, which would repeat every record.
    _logger.propagate = False


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """While the body runs, append every record (from DEBUG on) to a file.

    Several files may be open at once, each in a thread of its own: a record that was made inside of
    one body does not go to the other's file. A thread that the body starts belongs to all of them,
    unless it runs in a copy of the body's context (`contextvars.copy_context`).
    """
    handler = _File(path, encoding="utf-8", delay=True)
    handler.setFormatter(_FORMAT)
    handler.addFilter(lambda record: _current_file.get(path) == path)
    _logger.setLevel(logging.DEBUG)
    _logger.addHandler(handler)
    before = _current_file.set(path)
    try:
        yield
    finally:
        _current_file.reset(before)
        _logger.removeHandler(handler)
        with suppress(OSError):  # a full disk, again
            handler.close()
