"""The process that runs verl: ``python -m rilbench.train.pipeline.trainer_main JOB``.

A process of its own, so that the command line stays light and a run can be ended as one group.
``JOB`` is the run's ``data/job.json``; the outcome is written beside it: ``error`` is "" when the
run trained to its end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import OmegaConf, open_dict

from rilbench.config import read_recipe
from rilbench.config.layouts import suited
from rilbench.errors import UserError
from rilbench.train import trackers
from rilbench.train.failure_reason import one_line
from rilbench.train.notes import leave_note
from rilbench.train.start_lock import one_start_at_a_time
from rilbench.train.trackers import TrackedRun


def compose_config(job: dict[str, Any]) -> Any:
    """Return verl's configuration of a job, checked by verl."""
    from verl.trainer.main_ppo import auto_set_device

    from rilbench.train.verl.config import compose, validate

    run_dir = Path(job["run_dir"])
    recipe = suited(read_recipe(run_dir / "recipe.yaml"), job["model"])
    resume = Path(job["resume_from"]) if job["resume_from"] else None
    config = compose(recipe, run_dir, job["model"], resume_from=resume)
    with open_dict(config):
        config.trainer.logger = tracked_run(job).opened_by_verl
        config.transfer_queue.enable = True
    auto_set_device(config)
    validate(config)
    OmegaConf.resolve(config)
    return config


def start_ray(config: Any) -> None:
    """Start or join a Ray cluster.

    As verl's ``run_ppo``, which would put the trainer into an actor: one process more.
    """
    from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

    runtime = get_ppo_ray_runtime_env(config)
    runtime["env_vars"]["TRANSFER_QUEUE_ENABLE"] = "1"
    os.environ.update(runtime["env_vars"])
    settings = {"address": "local", **OmegaConf.to_container(config.ray_kwargs.get("ray_init", {}))}
    if settings["address"] == "local":
        # Ours (`rilbench.processes`), where Ray's sockets have short paths and nothing is left.
        settings["_temp_dir"] = tempfile.gettempdir()
        # No idle processes: ours have environments of their own and cannot use them.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    for attempt in range(3):
        try:
            ray.init(**{**settings, "runtime_env": runtime})
            break
        except Exception:  # Ray raises it bare, when its own processes take more than 30 s
            if attempt == 2:
                raise
            ray.shutdown()


def start_trainer(config: Any, trainer: Any) -> None:
    """Start Ray, TransferQueue and the trainer's workers."""
    from rilbench.train.verl.cpu_rollout import start_servers

    run_dir = trainer.run_dir
    alone = one_start_at_a_time(run_dir, partial(leave_note, run_dir, 0))
    with alone if config.trainer.device == "cpu" else nullcontext():
        trainer.activity.begin("starting Ray")
        start_ray(config)
        trainer.activity.begin("loading the models")
        trainer.started_servers = start_servers(config)
        tq.init(config.transfer_queue)
        trainer.init()


def tracked_run(job: dict[str, Any]) -> TrackedRun:
    """The run of a job as its trackers know it."""
    folder, project = Path(job["run_dir"]), "rilbench"
    return TrackedRun(folder, job["tracker_id"], project, job["step"], job["trackers"])


def train_job(job: dict[str, Any]) -> None:
    """Train a job's run to its last step."""
    from rilbench.train.trainer import RILTrainer

    config = compose_config(job)
    tracked = tracked_run(job)
    trackers.begin(tracked, OmegaConf.to_container(config))
    trainer = RILTrainer(config)
    trainer.tracked = tracked
    start_trainer(config, trainer)
    finished = False
    try:
        trainer.fit(trainer.rollout_manager())
        finished = True
    finally:  # verl's trackers
        if hasattr(trainer, "logger"):
            trainer.logger.finish(exit_code=0 if finished else 1)


def main(path: Path) -> int:
    """Do one job; return the exit status."""
    job = json.loads(path.read_text(encoding="utf-8"))
    reason = ""
    try:
        train_job(job)
    except UserError as error:
        reason = f"({error})"
    except Exception as error:  # noqa: BLE001 - the reason goes to the waiting process
        traceback.print_exc()
        reason = f"({one_line(error)})"
    path.with_name("outcome.json").write_text(json.dumps({"error": reason}), encoding="utf-8")
    ray.shutdown()
    return 1 if reason else 0


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    sys.exit(main(Path(sys.argv[1])))
