"""Step time on a CPU, as a number that two machines share.

Seconds belong to a machine. So at the end of each step a fixed piece of work of the same kind is
timed too: the ratio of the two says what a step costs on any machine. Both are CPU seconds, since
wall-clock seconds also say how busy the machine was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

_WIDTH, _BATCH, _LENGTH = 128, 32, 64

OnLine = Callable[[str, Mapping[str, Any]], None]
"""Called with the kind and the values of each line that the trainer records."""


class StepTimer:
    """Measures at the end of each step; only on a CPU, as a GPU's work takes no CPU seconds.

    Args:
        spent: returns the CPU seconds of the trainer's processes so far.
        yardstick: does the fixed piece of work and returns its CPU seconds.
    """

    def __init__(self, spent: Callable[[], float], yardstick: Callable[[], float]) -> None:
        self._spent, self._yardstick = spent, yardstick
        self._steps: list[tuple[int, float]] = []
        self._yardsticks: list[float] = []

    def measuring(self, on_line: OnLine) -> OnLine:
        """Return a function that measures at each step's line, then calls ``on_line``."""

        def line(kind: str, values: Mapping[str, Any]) -> None:
            if kind == "ril":
                self._steps.append((int(values["step"]), self._spent()))
                self._yardsticks.append(self._yardstick())
            on_line(kind, values)

        return line

    @property
    def metrics(self) -> dict[str, float]:
        """``step_cpu_seconds`` (mean) and ``yardstick_seconds`` (median); empty below two steps.

        The mean is from the end of the first step to the end of the last, so that starting verl is
        not in it.
        """
        if len(self._steps) < 2:
            return {}
        (first, before), (last, after) = self._steps[0], self._steps[-1]
        return {
            "step_cpu_seconds": (after - before) / (last - first),
            "yardstick_seconds": statistics.median(self._yardsticks),
        }


class Yardstick:
    """The fixed piece of work: forward and backward of a small transformer layer, on one thread."""

    def __init__(self) -> None:
        import torch
        from torch.nn import TransformerEncoderLayer

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self._layer = TransformerEncoderLayer(
                _WIDTH, 4, 4 * _WIDTH, dropout=0.0, batch_first=True
            )
            self._batch = torch.randn(_BATCH, _LENGTH, _WIDTH)
        self()  # The first pass allocates what the others reuse.

    def __call__(self) -> float:
        """Do the work once and return the CPU seconds of this thread."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.thread_time()
            self._layer.zero_grad()
            self._layer(self._batch).square().mean().backward()
            return time.thread_time() - started
        finally:
            torch.set_num_threads(threads)
