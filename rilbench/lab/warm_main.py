"""The process of a warm session: ``python -m rilbench.lab.warm_main SOCKET``.

It reads the path of a job file on each line and answers each with a line of JSON: ``error`` (""
when the run trained to its end) and ``usable`` (whether it can take another job).
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from rilbench.train.pipeline.trainer_main import (
    compose_config,
    fit,
    reason_of_failure,
    start_trainer,
)


class Jobs:
    """Trains one job after another in this process."""

    def __init__(self) -> None:
        self.actors: Any = None

    def do(self, path: Path) -> dict[str, Any]:
        """Train a job, its output in the run's own log, and return the reply."""
        job = json.loads(path.read_text(encoding="utf-8"))
        _write_to(Path(job["run_dir"]) / "logs" / "trainer.log")
        reason, error = reason_of_failure(lambda: self._train(job))
        lost = isinstance(error, RayActorError)
        usable = not lost and (self.actors is not None or not ray.is_initialized())
        return {"error": reason, "usable": usable}

    def _train(self, job: dict[str, Any]) -> None:
        os.environ["TENSORBOARD_DIR"] = str(Path(job["run_dir"]) / "tensorboard")
        config = compose_config(job)
        from rilbench.lab.warm_trainer import WarmRILTrainer

        trainer = WarmRILTrainer(config)
        if self.actors is None:
            start_trainer(config, trainer)
        else:
            trainer.actors = self.actors
            trainer.init()
        self.actors = trainer.actors
        fit(trainer)


def _write_to(log: Path) -> None:
    """Send this process's output, and Ray's through it, to another file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


def serve(address: str) -> None:
    """Do jobs until the other end closes, or until this process cannot take another."""
    jobs = Jobs()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for line in connection.makefile("r", encoding="utf-8"):
            reply = jobs.do(Path(line.strip()))
            connection.sendall((json.dumps(reply) + "\n").encode())
            if not reply["usable"]:
                break
    ray.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    serve(sys.argv[1])
