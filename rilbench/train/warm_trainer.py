"""What stays up between the runs of a session: verl's Ray actors, on a CPU.

Each actor is constructed anew in its process for the next run's configuration: new weights, new
optimisers, empty queues. What is kept are the processes, with all that they have imported.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
import transfer_queue as tq
from omegaconf import open_dict
from verl.checkpoint_engine import CheckpointEngineManager
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.utils.losses import value_loss

from rilbench.train.verl.model_families import has_mrope
from rilbench.train.verl.rollout_worker import AgentLoops


@dataclass
class Actors:
    """The actors of a session, and verl's handles on them."""

    policy: Any
    discriminator: Any
    rewards: Any
    servers: Any
    agent_loops: AgentLoops | None = None


class ReusingTrainer(PPOTrainerSync):  # type: ignore[misc]
    """verl's trainer, which can take over the actors of the trainer before it."""

    actors: Actors | None = None
    """Set before `init` to take them over, and there after it to hand them on."""
    keep = False
    """Whether another run will take over: the discriminator's worker then starts in any case."""
    idle_discriminator = False
    """Whether it started for later runs only."""

    def _setup(self) -> None:
        seed_everything(self.config.ril.seed)
        if self.actors is None:
            self._start_actors()
        else:
            self._take_over(self.actors)

    def _init_tokenizer(self) -> None:
        """verl's; and the data sets, in whatever process, learn how to open pictures."""
        super()._init_tokenizer()
        with open_dict(self.config):
            self.config.data.pictures_as_they_are = not has_mrope(self.processor)

    def _start_actors(self) -> None:
        self.idle_discriminator = self.keep and not self.use_critic
        if self.idle_discriminator:
            self._switch_discriminator(True)
        super()._setup()
        self.actors = Actors(
            policy=self.actor_rollout_wg,
            discriminator=self.critic_wg if self.use_critic else None,
            rewards=self.reward_loop_manager,
            servers=self.llm_server_manager,
        )
        if self.idle_discriminator:
            self._switch_discriminator(False)

    def _load_checkpoint(self) -> None:
        """verl's, which would look for an idle discriminator's weights too: none are saved."""
        if self.idle_discriminator:
            self.use_critic = False
        super()._load_checkpoint()
        if self.idle_discriminator:
            self.use_critic = True

    def _switch_discriminator(self, on: bool) -> None:
        """Configure verl's critic, for a run without one, only so far that its worker starts."""
        self.use_critic = on
        policy, critic = self.config.actor_rollout_ref.model, self.config.critic
        with open_dict(self.config):
            critic.enable = on
            critic.strategy = self.config.actor_rollout_ref.actor.strategy
            critic.model.path = policy.path
            critic.model.use_remove_padding = policy.use_remove_padding
            critic.model.override_config = policy.override_config  # the kind of attention
            critic.ppo_micro_batch_size_per_gpu = critic.forward_micro_batch_size_per_gpu = 1

    def _take_over(self, actors: Actors) -> None:
        """What verl's `_setup` does, in its order, with actors that are there."""
        config = self.config
        clear_queue()
        self._init_tokenizer()
        self._init_dataloader()
        self._init_dump_executor()
        self._init_resource_pool_mgr()
        self.ref_in_actor = False
        actors.servers.config = config
        actors.servers.rollout_config = config.actor_rollout_ref.rollout
        actors.servers.model_config = config.actor_rollout_ref.model
        waiting = [
            reference
            for replica in actors.servers.get_replicas()
            for reference in replica.reconfigure(
                config.actor_rollout_ref.rollout, config.actor_rollout_ref.model
            )
        ]
        if self.use_critic:
            self.critic_wg = actors.discriminator
            self.critic_wg.reconfigure(self._discriminator_config())
            self.critic_wg.reset()
            self.critic_wg.set_loss_fn(
                partial(value_loss, config=omega_conf_to_dataclass(config.critic))
            )
        self.actor_rollout_wg = actors.policy
        role = Role.ActorRolloutRef if self.use_reference_policy else Role.ActorRollout
        self.actor_rollout_wg.reconfigure(config.actor_rollout_ref, str(role))
        self.actor_rollout_wg.init_model()
        self.ref_policy_wg = self.actor_rollout_wg
        self.reward_loop_manager = actors.rewards
        self.teacher_model_manager = self.distillation_config = None
        self.llm_server_manager = actors.servers
        ray.get(waiting)
        engine = omega_conf_to_dataclass(config.actor_rollout_ref.rollout.checkpoint_engine)
        engine.backend = "naive"
        self.checkpoint_manager = CheckpointEngineManager(
            config=engine, actor_wg=actors.policy, replicas=actors.servers.get_replicas()
        )
        self.checkpoint_manager.sleep_replicas()
        self._load_checkpoint()

    def _discriminator_config(self) -> TrainingWorkerConfig:
        """As verl's `_setup` builds it."""
        critic = omega_conf_to_dataclass(self.config.critic)
        critic.engine.infer_max_token_len_per_gpu = critic.ppo_infer_max_token_len_per_gpu
        critic.engine.max_token_len_per_gpu = critic.ppo_infer_max_token_len_per_gpu
        profiler = self.config.critic.get("profiler", {})
        return TrainingWorkerConfig(
            model_type="value_model",
            model_config=critic.model,
            engine_config=critic.engine,
            optimizer_config=critic.optim,
            checkpoint_config=critic.checkpoint,
            profiler_config=omega_conf_to_dataclass(profiler) if profiler else None,
        )

    def agent_loops(self) -> AgentLoops:
        """The manager of the agent loops for this run."""
        assert self.actors is not None
        arguments = (
            self.config,
            self.get_llm_client(),
            self.get_teacher_client(),
            self.get_reward_handles(),
        )
        if self.actors.agent_loops is None:
            self.actors.agent_loops = AgentLoops.create(*arguments)
        else:
            self.actors.agent_loops.reconfigure(*arguments)
        return self.actors.agent_loops


def clear_queue() -> None:
    """Forget the rows that a run left in TransferQueue."""
    for partition, rows in (tq.kv_list() or {}).items():
        if rows:
            tq.kv_clear(keys=list(rows), partition_id=partition)


def seed_everything(seed: int) -> None:
    """Set the generators that a new process would have new."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
