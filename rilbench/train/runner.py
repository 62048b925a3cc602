"""The process that runs verl: ``python -m rilbench.train.runner JOB.json``.

A process of its own, so that the command line stays light and a run can be ended as one group.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray


class _TaskRunner:
    """verl's task runner with our trainer, inside Ray."""

    def run(self, config: Any) -> None:
        """Build everything and train."""
        import transfer_queue as tq
        from omegaconf import OmegaConf
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ

        from rilbench.train.trainer import RILTrainer

        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        tq.init(config.transfer_queue)
        trainer = None
        finished = False
        try:
            trainer = RILTrainer(config)
            trainer.init()
            manager = AgentLoopManagerTQ.create(
                config=config,
                llm_client=trainer.get_llm_client(),
                teacher_client=trainer.get_teacher_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            trainer.fit(manager)
            finished = True
        finally:
            tracking = getattr(trainer, "logger", None)
            if tracking is not None:
                tracking.finish(exit_code=0 if finished else 1)
            tq.close()


def train(job: dict[str, Any]) -> None:
    """Run one job: recipe file, run folder, model, judge and trackers, as `stages` wrote them."""
    from omegaconf import open_dict
    from verl.trainer.main_ppo import auto_set_device, run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    from rilbench.recipe import read_recipe
    from rilbench.train.verl_config import compose

    run_dir = Path(job["run_dir"])
    recipe = read_recipe(run_dir / "recipe.yaml")
    resume = Path(job["resume_from"]) if job["resume_from"] else None
    config = compose(recipe, run_dir, job["model"], resume_from=resume)
    with open_dict(config):
        config.trainer.logger = list(job["trackers"])
    auto_set_device(config)
    validate_config(
        config=config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    try:
        run_ppo(config, task_runner_class=ray.remote(_TaskRunner))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    # A process that is told to go must not leave Ray behind.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    train(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
