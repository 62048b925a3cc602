"""What a step and a run of the lab's fast engine cost. ``make bench-lab``.

Writes ``results/bench/lab-step.json``: CPU seconds of a RIL step of 112 responses (the median of
ten), of its parts, of a whole run with its evaluation by the kit, and of a saved response. One
thread; the machine should do nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rilbench.config import load_recipe
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate_many
from rilbench.lab.fast.discriminator import Discriminator
from rilbench.lab.fast.engine import FastRun
from rilbench.lab.fast.groups import Groups
from rilbench.lab.fast.models import regime_folder, training_data
from rilbench.lab.regimes import REGIMES
from rilbench.nano.data import write_benchmarks

OUT = Path(__file__).parents[2] / "results" / "bench" / "lab-step.json"
SETTINGS = ["schedule.prompts_per_step=14", "policy.kl_coef=0.01"]
STEPS = 30
PARTS = {
    "sampling": (Groups, "sample"),
    "policy update and reference": (FastRun, "update_policy"),
    "discriminator's update": (Discriminator, "update"),
}


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def timed(spent: list[float], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which notes the CPU seconds of each call."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.process_time() - start)

    return wrapper


def main() -> None:
    """Measure in a temporary folder."""
    regime = REGIMES["paper"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = regime_folder(regime, root / "regimes", print)
        settings = [*SETTINGS, f"schedule.steps={STEPS}"]
        recipe = load_recipe(
            "both", "nano", "ril", settings, settings=regime.recipe_settings(folder)
        )
        start = cpu_seconds()
        data, _ = training_data(regime, folder, recipe, print)
        collected = cpu_seconds() - start
        teachers = [r for by in data.saved.values() for own in by.values() for r in own]

        steps: list[float] = []
        parts: dict[str, list[float]] = {part: [] for part in PARTS}
        for part, (owner, method) in PARTS.items():
            setattr(owner, method, timed(parts[part], getattr(owner, method)))
        FastRun.take_step = timed(steps, FastRun.take_step)  # type: ignore[method-assign]
        start = cpu_seconds()
        run = FastRun(recipe, folder / "student", data, root / "run", lambda *_: None)
        run.run()
        run.policy.save(root / "model")
        trained = cpu_seconds() - start

        write_benchmarks(root / "dev", "dev")
        with Kit(root / "kit.log") as kit:
            options = EvalOptions(
                suite="nano", data=root / "dev", work=root / "work", engine="batch"
            )
            # The kit's start and its prompts are shared by all runs of a worker.
            evaluate_many([folder / "72b"], options, kit=kit)
            start, wall = cpu_seconds(), time.monotonic()
            evaluate_many([root / "model"], options, kit=kit)
            evaluated, wall = cpu_seconds() - start, time.monotonic() - wall
    found = {
        "command": "make bench-lab",
        "responses_of_a_step": 112,
        "step": round(statistics.median(steps[:10]), 3),
        "step_at_the_end": round(statistics.median(steps[-10:]), 3),
        "parts": {part: round(statistics.median(each), 3) for part, each in parts.items()},
        "run_of_30_steps": round(trained, 1),
        "evaluation": round(evaluated, 1),
        "evaluation_wall_with_the_kit": round(wall, 1),
        "saved_response": round(
            collected / (len(teachers) + sum(map(len, data.student_saved.values()))), 5
        ),
    }
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
