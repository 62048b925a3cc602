"""verl's Ray actors that stay up between the runs of a warm session, on a CPU.

Each actor is constructed again in its process for the next run's configuration: new weights, new
optimisers, empty queues. What stays are the processes, with all that they have imported.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import open_dict
from verl.checkpoint_engine import CheckpointEngineManager
from verl.single_controller.base.decorator import Dispatch, register
from verl.trainer.ppo.utils import Role
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import TrainingWorkerConfig
from verl.workers.rollout.replica import RolloutReplicaRegistry
from verl.workers.utils.losses import value_loss

from rilbench.lab.warm_server import WarmServer
from rilbench.train.trainer import RILTrainer
from rilbench.train.verl.cpu_rollout import TransformersReplica
from rilbench.train.verl.rollout_worker import RolloutManager, RolloutWorker
from rilbench.train.verl.workers import CPU_ROLLOUT, DiscriminatorWorker, PolicyWorker


class WarmPolicyWorker(PolicyWorker):
    """A policy worker that can serve another run."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def reconfigure(self, config: Any, role: str) -> None:
        """Become the worker of another run, as if newly constructed; `init_model` follows."""
        self.actor = self.ref = self.rollout = self.checkpoint_engine = None
        gc.collect()
        PolicyWorker.__init__(self, config, role)


class WarmDiscriminatorWorker(DiscriminatorWorker):
    """A discriminator worker that can serve another run."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def reconfigure(self, config: Any) -> None:
        """Become the worker of another run, as if newly constructed; `reset` follows."""
        self.engine: Any = None
        gc.collect()
        DiscriminatorWorker.__init__(self, config)


class WarmRolloutWorker(RolloutWorker):
    """A rollout worker that can serve another run."""

    def __init__(self, *arguments: Any) -> None:
        # Needed although it adds nothing: Ray sends inherited methods by value, without super().
        super().__init__(*arguments)

    async def reconfigure(self, *arguments: Any) -> None:
        """Drop what is under way and take another run's configuration."""
        for task in self.background_tasks:
            task.cancel()
        RolloutWorker.__init__(self, *arguments)


class WarmRolloutManager(RolloutManager):
    """The manager of `WarmRolloutWorker`s."""

    worker_class = WarmRolloutWorker

    def reconfigure(self, *arguments: Any) -> None:
        """Take another run's configuration."""
        WarmRolloutManager.__init__(self, *arguments)
        ray.get([worker.reconfigure.remote(*arguments) for worker in self.agent_loop_workers])


class WarmReplica(TransformersReplica):
    """verl's handle on one `WarmServer`."""

    server_class = WarmServer

    def reconfigure(self, config: Any, model_config: Any) -> list[Any]:
        """Give the server another run's configuration; returns what to wait for."""
        self.config = omega_conf_to_dataclass(config)
        self.model_config = model_config
        return [self._server_handle.reconfigure.remote(*self.server_arguments())]


RolloutReplicaRegistry.register(CPU_ROLLOUT, lambda: WarmReplica)


@dataclass
class Actors:
    """The actors of a session, and verl's handles on them."""

    policy: Any
    discriminator: Any
    rewards: Any
    servers: Any
    started_servers: list[Any]
    rollout_manager: WarmRolloutManager | None = None


class WarmRILTrainer(RILTrainer):
    """The trainer of one run of a session: it takes over the actors of the run before it."""

    policy_worker_class = WarmPolicyWorker
    discriminator_worker_class = WarmDiscriminatorWorker

    actors: Actors | None = None
    """Set before `init` to take them over; after it, to hand on to the next run."""
    idle_discriminator = False
    """Whether the discriminator's worker was started for later runs only."""

    def _start_workers(self) -> None:
        if self.actors is not None:
            self._take_over(self.actors)
            return
        # A later run may have a discriminator: its worker starts in any case.
        self.idle_discriminator = not self.use_critic
        if self.idle_discriminator:
            self._switch_discriminator(True)
        super()._start_workers()
        self.actors = Actors(
            policy=self.actor_rollout_wg,
            discriminator=self.critic_wg,
            rewards=self.reward_loop_manager,
            servers=self.llm_server_manager,
            started_servers=self.started_servers,
        )
        if self.idle_discriminator:
            self._switch_discriminator(False)

    def _load_checkpoint(self) -> None:
        """As verl's, which would look for an idle discriminator's weights too: none are saved."""
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
        """What verl's `_setup` does, in its order, with existing actors."""
        config = self.config
        _clear_queue()
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

    def rollout_manager(self) -> RolloutManager:
        """The manager of the rollout workers, started once and reconfigured for each run."""
        assert self.actors is not None
        arguments = (
            self.config,
            self.get_llm_client(),
            self.get_teacher_client(),
            self.get_reward_handles(),
        )
        if self.actors.rollout_manager is None:
            self.actors.rollout_manager = WarmRolloutManager.create(*arguments)
        else:
            self.actors.rollout_manager.reconfigure(*arguments)
        return self.actors.rollout_manager


def _clear_queue() -> None:
    """Forget the responses that a run left in TransferQueue."""
    for partition, keys in (tq.kv_list() or {}).items():
        if keys:
            tq.kv_clear(keys=list(keys), partition_id=partition)
