"""How fast a run trains, as a number that two machines share.

Seconds belong to a machine. Beside the CPU seconds of a step stand those of a fixed piece of work
of the same kind, done on the same machine at the end of each step: their ratio says what a step
costs, wherever it runs. CPU seconds, since those on the clock say how busy the machine was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

_WIDTH, _ROWS, _LENGTH = 128, 32, 64

OnLine = Callable[[str, Mapping[str, Any]], None]
"""Told each line that the trainer records, by its kind."""


class Pace:
    """Measures whenever a step is finished; only on a CPU, as a GPU's work takes no CPU seconds.

    Args:
        spent: the CPU seconds of the trainer's processes until now.
        measure: does the fixed piece of work and returns its CPU seconds.
    """

    def __init__(self, spent: Callable[[], float], measure: Callable[[], float]) -> None:
        self._spent, self._measure = spent, measure
        self._seen: list[tuple[int, float]] = []
        self._yardsticks: list[float] = []

    def watching(self, on_line: OnLine) -> OnLine:
        """Pass lines on, and measure at those of the loop."""

        def line(kind: str, values: Mapping[str, Any]) -> None:
            if kind == "ril":
                self._seen.append((int(values["step"]), self._spent()))
                self._yardsticks.append(self._measure())
            on_line(kind, values)

        return line

    @property
    def figures(self) -> dict[str, float]:
        """``step_cpu_seconds`` and ``yardstick_seconds``; empty where no two steps were seen.

        A step's are counted from the first one's end to the last one's, so that the start of verl
        is not in them; the yardstick's is the median.
        """
        if len(self._seen) < 2:
            return {}
        (first, before), (last, after) = self._seen[0], self._seen[-1]
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
            self._rows = torch.randn(_ROWS, _LENGTH, _WIDTH)
        self()  # The first pass makes what the others find.

    def __call__(self) -> float:
        """Do it once; return the CPU seconds of this thread."""
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            started = time.thread_time()
            self._layer.zero_grad()
            self._layer(self._rows).square().mean().backward()
            return time.thread_time() - started
        finally:
            torch.set_num_threads(threads)
