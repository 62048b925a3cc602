"""What a run costs: ``cost.json`` of a run and of a collection.

Tokens and judge calls are counted per step, so a run that was killed and resumed counts each step
once. CPU seconds are what was spent: they add up over all attempts, and are on the disk about every
second, so that a kill loses little.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

FILE = "cost.json"
STAGES = ("collect", "sft", "discriminator", "ril")
TOKENS = ("sampled_tokens", "teacher_tokens", "trained_tokens", "judge_calls")
"""Counted in each line of ``metrics.jsonl`` and of ``sft/metrics.jsonl``."""


class CpuMeter:
    """While the body runs, book CPU seconds as they are spent.

    Args:
        book: called with the seconds since the last call, from a thread of its own.
        spent: the CPU seconds until now of what is measured.
        from_start: whether what it spent before counts too.
    """

    def __init__(
        self,
        book: Callable[[float], None],
        spent: Callable[[], float],
        *,
        from_start: bool = False,
    ) -> None:
        self._book, self._spent = book, spent
        self._last = 0.0 if from_start else spent()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def _watch(self) -> None:
        while not self._stop.wait(1.0):
            self._read()

    def _read(self) -> None:
        now = self._spent()
        # A subtree that ended without being waited for takes its seconds along: booked already.
        if now > self._last:
            self._book(now - self._last)
        self._last = now


class RunCost:
    """``cost.json`` of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def book(self, stage: str, seconds: float) -> None:
        """Add CPU seconds to a stage."""
        found = self._read()
        found["cpu_seconds"][stage] = (found["cpu_seconds"][stage] or 0.0) + seconds
        _write(self.folder / FILE, found)

    def pace(self, figures: Mapping[str, float]) -> None:
        """Keep how fast it went: `rilbench.train.pipeline.step_time.Pace.figures`."""
        if figures:
            _write(self.folder / FILE, self._read() | dict(figures))

    def collected(self, collections: Iterable[tuple[Path, str]]) -> None:
        """Take over what the responses that the run uses have cost, whoever collected them.

        Args:
            collections: folder of the collection and model, for each that the run uses.
        """
        each = [read_collection_cost(folder).get(model) for folder, model in collections]
        seconds = [None if cost is None else cost["cpu_seconds"] for cost in each]
        known = [s for s in seconds if s is not None]
        found = self._read()
        found["cpu_seconds"]["collect"] = sum(known) if len(known) == len(seconds) else None
        _write(self.folder / FILE, found)

    def count(self) -> None:
        """Count tokens and judge calls of all steps that stand in the metrics."""
        found = self._read() | dict.fromkeys(TOKENS, 0)
        for name in ("sft/metrics.jsonl", "metrics.jsonl"):
            path = self.folder / name
            if not path.exists():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                for key in TOKENS:
                    found[key] += values.get(key, 0)
        _write(self.folder / FILE, found)

    def _read(self) -> dict[str, Any]:
        empty = {**dict.fromkeys(TOKENS, 0), "cpu_seconds": dict.fromkeys(STAGES, 0.0)}
        return empty | _load(self.folder / FILE)


class CollectionCost:
    """``cost.json`` of a collection: for each model its responses, tokens and CPU seconds.

    CPU seconds are the model server's; None where the model stands at an address of the user's.
    One object is shared by the threads that collect; a lock on the folder keeps others away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()

    def book(self, model: str, story: str, seconds: float) -> None:
        """Add CPU seconds of collecting ``story``, the plan's fingerprint; another starts anew."""
        with self._lock:
            found = self._found(model, story)
            found[model]["cpu_seconds"] += seconds
            _write(self.folder / FILE, found)

    def count(self, model: str, story: str, responses: int, tokens: int, *, served: bool) -> None:
        """Write down how much was collected, and whether we served the model ourselves."""
        with self._lock:
            found = self._found(model, story)
            found[model] |= {"responses": responses, "tokens": tokens}
            if not served:
                found[model]["cpu_seconds"] = None
            _write(self.folder / FILE, found)

    def _found(self, model: str, story: str) -> dict[str, Any]:
        found = read_collection_cost(self.folder)
        if found.get(model, {}).get("story") != story:
            found[model] = {"story": story, "responses": 0, "tokens": 0, "cpu_seconds": 0.0}
        return found


def read_collection_cost(folder: Path) -> dict[str, Any]:
    """Each model's cost; empty for a collection that was made elsewhere."""
    return _load(folder / FILE)


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, values: dict[str, Any]) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
