"""The process that runs verl: ``python -m rilbench.train.pipeline.trainer_main SOCKET``.

A process of its own, so that the command line stays light and a run can be ended as one group. It
reads the path of a job file on each line and answers each with a line of JSON: ``error`` (empty
when the run trained to its end) and ``usable`` (whether it can take another job).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from filelock import FileLock
from omegaconf import OmegaConf, open_dict
from ray.exceptions import RayActorError

from rilbench.config import read_recipe
from rilbench.errors import UserError


class Jobs:
    """Trains one job after another in this process."""

    def __init__(self) -> None:
        self.actors: Any = None

    def do(self, path: Path) -> dict[str, Any]:
        """Train a job, its output in the run's own log, and return the reply."""
        job = json.loads(path.read_text(encoding="utf-8"))
        _write_to(Path(job["run_dir"]) / "logs" / "trainer.log")
        os.environ["TENSORBOARD_DIR"] = str(Path(job["run_dir"]) / "tensorboard")
        reason, lost = "", False
        try:
            self._train(job)
        except UserError as error:
            reason = f"({error})"
        except Exception as error:  # noqa: BLE001 - the next job may be sound
            traceback.print_exc()
            lost = isinstance(error, RayActorError)
            reason = f"({_in_one_line(error)})"
        usable = not lost and (self.actors is not None or not ray.is_initialized())
        return {"error": reason, "usable": usable}

    def _train(self, job: dict[str, Any]) -> None:
        config = _configure(job)
        from rilbench.train.trainer import RILTrainer

        trainer: Any = None
        finished = False
        try:
            if self.actors is None:
                # Two that start at once on a small machine run into Ray's time limits.
                with FileLock(Path(tempfile.gettempdir()) / "rilbench-verl-start.lock"):
                    _start_ray(config)
                    trainer = RILTrainer(config)
                    trainer.keep = job["keep"]
                    trainer.init()
            else:
                trainer = RILTrainer(config)
                trainer.actors = self.actors
                trainer.init()
            self.actors = trainer.actors
            trainer.fit(trainer.agent_loops())
            finished = True
        finally:
            if hasattr(trainer, "logger"):
                trainer.logger.finish(exit_code=0 if finished else 1)


def _configure(job: dict[str, Any]) -> Any:
    """verl's configuration of a job, checked by verl."""
    from verl.trainer.main_ppo import auto_set_device

    from rilbench.train.verl.config import compose, validate

    run_dir = Path(job["run_dir"])
    recipe = read_recipe(run_dir / "recipe.yaml")
    resume = Path(job["resume_from"]) if job["resume_from"] else None
    config = compose(recipe, run_dir, job["model"], resume_from=resume)
    with open_dict(config):
        config.trainer.logger = list(job["trackers"])
        config.actor_rollout_ref.threads = job["threads"]
        config.transfer_queue.enable = True
    auto_set_device(config)
    validate(config)
    OmegaConf.resolve(config)
    return config


def _start_ray(config: Any) -> None:
    """A Ray cluster of this process's own, and TransferQueue in it.

    As verl's ``run_ppo``, which would put the trainer into an actor: one process more.
    """
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    runtime = get_ppo_ray_runtime_env(config)
    runtime["env_vars"]["TRANSFER_QUEUE_ENABLE"] = "1"
    os.environ.update(runtime["env_vars"])
    settings = OmegaConf.to_container(config.ray_kwargs.get("ray_init", {}))
    for attempt in range(3):
        try:
            ray.init(**{"address": "local", **settings, "runtime_env": runtime})
            break
        except Exception:  # Ray raises it bare, when its own processes take more than 30 s
            if attempt == 2:
                raise
            ray.shutdown()
    tq.init(config.transfer_queue)


def _write_to(log: Path) -> None:
    """Send this process's output, and Ray's through it, to another file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)


def _in_one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:600]


def serve(address: str) -> None:
    """Do jobs until the other end closes, or until this process is of no more use."""
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
