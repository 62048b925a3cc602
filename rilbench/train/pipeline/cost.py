"""What a run costs: ``cost.json`` of a run and of a collection.

Tokens and judge calls are counted per step, so a run that was killed and resumed counts each step
once. CPU seconds add up over all attempts, and are written about every second, so that a kill loses
little.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rilbench.paths import whole_file

FILE = "cost.json"
STAGES = ("collect", "sft", "discriminator", "ril")
TOKENS = ("sampled_tokens", "teacher_tokens", "trained_tokens", "judge_calls")
"""Counts in each line of ``metrics.jsonl`` and of ``sft/metrics.jsonl``."""


@contextmanager
def metered(
    book: Callable[[float], None], spent: Callable[[], float], *, from_start: bool = False
) -> Iterator[None]:
    """Book CPU seconds while the body spends them.

    Args:
        book: called about every second with the seconds since the last call, in another thread.
        spent: returns the total CPU seconds so far of what is measured.
        from_start: count also what was spent before the body.
    """
    last, stop = 0.0 if from_start else spent(), threading.Event()

    def read() -> None:
        nonlocal last
        now = spent()
        # It falls when a subtree ends without being waited for, whose seconds are booked already.
        if now > last:
            book(now - last)
        last = now

    def watch() -> None:
        with suppress(OSError):  # a full disk: the last reading, in the caller's thread, tells it
            while not stop.wait(1.0):
                read()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        read()


class RunCost:
    """``cost.json`` of a run."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def book(self, stage: str, seconds: float) -> None:
        """Add CPU seconds to a stage."""
        cost = self._read()
        cost["cpu_seconds"][stage] = (cost["cpu_seconds"][stage] or 0.0) + seconds
        _write(self.file, cost)

    def set_step_time(self, metrics: Mapping[str, float]) -> None:
        """Keep the step time: `rilbench.train.pipeline.step_time.StepTimer.metrics`."""
        if metrics:
            _write(self.file, self._read() | dict(metrics))

    def set_collected(self, collections: Iterable[tuple[Path, str]]) -> None:
        """Set the seconds of collecting to those of all responses that the run uses.

        Unknown (null) if those of any of them are.

        Args:
            collections: folder of the collection and name of the model, for each that is used.
        """
        costs = [read_collection_cost(folder).get(model) for folder, model in collections]
        seconds: list[Any] = [None if known is None else known["cpu_seconds"] for known in costs]
        cost = self._read()
        cost["cpu_seconds"]["collect"] = None if None in seconds else sum(seconds)
        _write(self.file, cost)

    def count_tokens(self) -> None:
        """Count the tokens and judge calls of all steps in the metrics."""
        cost = self._read() | dict.fromkeys(TOKENS, 0)
        for name in ("sft/metrics.jsonl", "metrics.jsonl"):
            path = self.file.parent / name
            if not path.exists():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                for key in TOKENS:
                    cost[key] += values.get(key, 0)
        _write(self.file, cost)

    def _read(self) -> dict[str, Any]:
        empty = {**dict.fromkeys(TOKENS, 0), "cpu_seconds": dict.fromkeys(STAGES, 0.0)}
        return empty | _load(self.file)


class CollectionCost:
    """``cost.json`` of a collection: for each model its responses, tokens and CPU seconds.

    CPU seconds are the model server's; null for a server of the user's. The threads that collect
    share one object; a lock on the folder keeps other processes away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def book(self, model: str, fingerprint: str, seconds: float) -> None:
        """Add CPU seconds of collecting by the plan with this fingerprint.

        The cost of another plan's responses, which are no longer there, is dropped.
        """
        with self._lock:
            costs = self._read(model, fingerprint)
            costs[model]["cpu_seconds"] += seconds
            _write(self.folder / FILE, costs)

    def count(
        self, model: str, fingerprint: str, responses: int, tokens: int, *, served: bool
    ) -> None:
        """Set how much was collected, and whether we served the model ourselves."""
        with self._lock:
            costs = self._read(model, fingerprint)
            costs[model] |= {"responses": responses, "tokens": tokens}
            if not served:
                costs[model]["cpu_seconds"] = None
            _write(self.folder / FILE, costs)

    def _read(self, model: str, fingerprint: str) -> dict[str, Any]:
        costs = read_collection_cost(self.folder)
        if costs.get(model, {}).get("fingerprint") != fingerprint:
            costs[model] = {"fingerprint": fingerprint, "responses": 0, "tokens": 0}
            costs[model]["cpu_seconds"] = 0.0
        return costs


def read_collection_cost(folder: Path) -> dict[str, Any]:
    """Each model's cost; empty for a collection that was made elsewhere."""
    return _load(folder / FILE)


def _load(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return values


def _write(path: Path, values: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
