"""Algorithm 2 on verl: the synchronous PPO trainer with the order of a RIL step.

Sample G responses and take the teachers' saved ones (`rollout`) → update the discriminator by
Equation 1 and score with it (`discriminator_trainer`) → rewards and advantages
(`rilbench.ril.step`) → update the policy by Equation 2 (`losses`).
"""

from __future__ import annotations

import json
import random
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import ray
import torch
from omegaconf import OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import collate_fn
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import log_seqlen_unbalance

import rilbench.train.verl.cpu_rollout  # noqa: F401  registers the CPU's rollout engine
from rilbench.data.rollout_groups import is_sampled, sample_group
from rilbench.errors import UserError
from rilbench.ril.rewards import compute_rewards
from rilbench.ril.step import StepSignal, score_step
from rilbench.train.activity import ActivityFile
from rilbench.train.batch import (
    ROW_FIELDS,
    SIGNAL_FIELDS,
    TEACHER_FIELD,
    balanced_order,
    grouped_order,
    in_fixed_order,
    read_batch,
    read_old_log_probs,
    write_back,
)
from rilbench.train.dev_score import dev_accuracy, judged_only
from rilbench.train.discriminator_trainer import DiscriminatorTrainer
from rilbench.train.group_buffer import GroupBuffer
from rilbench.train.health import warnings
from rilbench.train.losses import policy_loss_fn
from rilbench.train.metrics import (
    advantage_metrics,
    as_json,
    policy_metrics,
    reward_metrics,
    token_metrics,
)
from rilbench.train.nan_guard import check_finite, leave_reason
from rilbench.train.notes import leave_note
from rilbench.train.rewards import load_rewards
from rilbench.train.sample_tables import SampleTables, sample_rows
from rilbench.train.seeding import seed_everything, seed_of
from rilbench.train.step_batch import StepBatch, write_rollouts
from rilbench.train.step_checkpoint import OLD, missing_part, steps_in
from rilbench.train.step_config import StepConfig
from rilbench.train.trackers import TrackedRun, continued, new_at
from rilbench.train.verl.model_families import is_qwen
from rilbench.train.verl.rollout_worker import RolloutManager
from rilbench.train.verl.workers import DiscriminatorWorker, PolicyWorker

POLL_SECONDS = 0.05
"""How often to look for finished rollouts; verl's own 2 s would be most of a small step."""


class RILTrainer(PPOTrainerSync):  # type: ignore[misc]
    """verl's trainer with a discriminator in the critic's slot.

    A method without a discriminator (`rilbench.ril.methods`) runs the same code without one.
    """

    policy_worker_class: type[PolicyWorker] = PolicyWorker
    discriminator_worker_class: type[DiscriminatorWorker] = DiscriminatorWorker

    started_servers: list[Any]
    """Rollout servers that started before verl asked for them; verl's own handles do not keep an
    actor alive (`rilbench.train.verl.cpu_rollout.start_servers`)."""

    tracked: TrackedRun
    """The run as its trackers know it."""

    def __init__(self, config: Any) -> None:
        self.step_config = StepConfig.parse(OmegaConf.to_container(config.ril))
        self.run_dir = Path(self.step_config.run_dir)
        self.activity = ActivityFile(self.run_dir)
        self.rewards = load_rewards(self.step_config.extra_rewards)
        self.discriminator: DiscriminatorTrainer | None = None
        self.step_metrics: dict[str, float] = {}
        self.judge_calls = 0
        self.save_due = False
        self.sample_tables: SampleTables | None = None
        self.in_step: set[int] = set()
        """Row in the data of each question that was submitted in this step."""
        metrics = self.run_dir / "metrics.jsonl"
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        self.history: list[dict[str, Any]] = [json.loads(line) for line in lines]
        super().__init__(config)

    @property
    def logger(self) -> Any:
        """verl's trackers, which it opens in `fit`."""
        return self._logger

    @logger.setter
    def logger(self, tracking: Any) -> None:
        self._logger = continued(tracking, self.tracked)

    # ---- one step of Algorithm 2

    def _step_once(
        self, metrics: dict[str, Any], timing_raw: dict[str, float], sample_batch_size: int
    ) -> KVBatchMeta:
        """verl's hook for one step: ``sample_batch_size`` questions, one update."""
        started = time.monotonic()

        # Sample G responses to each question and take G saved ones of its teachers, all judged.
        responses_of_step = sample_batch_size * self.step_config.group_responses
        with self._part("gen", timing_raw, responses_of_step):
            batch = self._sample(metrics, sample_batch_size)
        batch = self._deal_to_ranks(in_fixed_order(batch), metrics)
        responses = read_batch(
            batch, self.tokenizer, self.image_token, self.step_config.num_student_responses
        )

        # Update the discriminator by Equation 1, then score the responses with it.
        logits = None
        with self._part("discriminator", timing_raw):
            if self.discriminator is not None:
                logits, discriminator_metrics = self.discriminator.update_and_score(responses)
                self.step_metrics |= discriminator_metrics

        # What Equation 2 compares the policy with: π_old (itself at mu = 1) and the reference.
        old_log_probs = None
        batch.fields = [*ROW_FIELDS]
        needed = [*ROW_FIELDS, *SIGNAL_FIELDS]
        if self.step_config.method_spec.uses_teacher_log_probs:
            needed.append(TEACHER_FIELD)
        if not self.on_policy:
            with self._part("old_log_prob", timing_raw):
                self._compute_old_log_prob(batch, metrics=metrics)
                old_log_probs = read_old_log_probs(batch)
                needed.append("old_log_probs")
        if self.use_reference_policy:
            with self._part("ref", timing_raw):
                self._compute_ref_log_prob(batch, metrics=metrics)
                needed.append("ref_log_prob")

        # Rewards and advantages, then the policy's update by Equation 2.
        with marked_timer("adv", timing_raw):
            signal = self._score(responses, logits, old_log_probs)
            write_back(batch, responses, signal)
        batch.fields = needed
        with self._part("update_actor", timing_raw):
            batch = self._update_actor(batch, metrics=metrics)
        self.step_metrics |= policy_metrics(metrics)
        self._check_finite("discriminator_loss", "discriminator_grad_norm")
        self._check_finite("policy_loss", "kl", "entropy", "grad_norm")
        self.step_metrics["seconds_after_sampling"] = time.monotonic() - started - timing_raw["gen"]
        return batch

    @contextmanager
    def _part(self, name: str, timing_raw: dict[str, float], of: int = 0) -> Iterator[None]:
        """Time a part of the step, and say that it goes on; ``of`` counts what it waits for."""
        self.activity.begin(name, self.global_steps, of)
        with marked_timer(name, timing_raw):
            yield

    def _sample(self, metrics: dict[str, Any], questions: int) -> KVBatchMeta:
        """All groups of a step, from verl's rollout workers (`rilbench.train.rollout`)."""
        self.on_sample_begin()
        try:
            batch, rollout_metrics = self.replay_buffer.sample(
                global_steps=self.global_steps, partition_id="train", batch_size=questions
            )
        except UserError as error:
            leave_reason(self.run_dir, f"step {self.global_steps}: {error}")
            raise
        metrics.update(rollout_metrics)
        batch.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        self.on_sample_end()
        self.step_metrics["failed_questions"] = len(self.replay_buffer.failed)
        return batch

    def _deal_to_ranks(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """As verl's ``_balance_batch``, but the groups of a mini-batch stay whole in it."""
        lengths = [tag["seq_len"] for tag in batch.tags]
        ranks = self.actor_rollout_wg.world_size
        if self.step_config.rows_together:
            order = grouped_order(
                [tag["prompt_len"] for tag in batch.tags],
                [tag["response_len"] for tag in batch.tags],
                group=self.step_config.group_responses,
                rows_together=self.step_config.rows_together,
                ranks=ranks,
                mini_batches=self.mini_batches,
            )
        else:
            order = balanced_order(lengths, ranks, self.mini_batches)
        size = len(order) // ranks
        shares = [order[first : first + size] for first in range(0, len(order), size)]
        metrics.update(log_seqlen_unbalance(lengths, shares, prefix="global_seqlen"))
        batch.reorder(order)
        return batch

    def _score(
        self,
        responses: StepBatch,
        logits: torch.Tensor | None,
        old_log_probs: list[float] | None,
    ) -> StepSignal:
        """Rewards and advantages of all responses, recorded and checked."""
        config = self.step_config
        self.judge_calls += len(responses)
        try:
            extra_rewards = compute_rewards(self.rewards, responses.reward_inputs)
        except ValueError as error:
            reason = f"step {self.global_steps}: {error}; then continue with --resume"
            leave_reason(self.run_dir, reason)
            raise UserError(reason) from error
        signal = score_step(
            logits,
            responses.answer_reward,
            responses.group,
            responses.is_student,
            config.method_spec,
            similarity=config.similarity,
            extra_rewards=extra_rewards,
            teachers_in_loss=config.teachers_in_loss,
        )
        path = self.run_dir / "rollouts" / f"step_{self.global_steps}.jsonl"
        write_rollouts(path, responses, signal, logits, extra_rewards, old_log_probs)
        self._check_judged(responses, signal)
        self.step_metrics |= reward_metrics(responses, signal, extra_rewards, config.method_spec)
        self._check_finite("discriminator_loss", "discriminator_grad_norm", "reward")
        self.step_metrics |= advantage_metrics(responses, signal, config.method_spec)
        self.step_metrics |= token_metrics(
            responses, teachers_in_loss=config.teachers_in_loss, mu=config.mu
        )
        return signal

    def _check_finite(self, *names: str) -> None:
        """Stop before the step is saved as a checkpoint; its rollouts are saved."""
        numbers = {name: self.step_metrics[name] for name in names if name in self.step_metrics}
        check_finite(self.run_dir, f"step {self.global_steps}", numbers)

    def _check_judged(self, responses: StepBatch, signal: StepSignal) -> None:
        """Stop if too many responses lack a verdict that the method needs; they are saved."""
        missing = int(signal.answer_reward.isnan().sum())
        if missing > self.step_config.max_missing * len(responses):
            cause = next((error for error in responses.judge_error if error), "it gave no cause")
            self._stop_for_verdicts(
                f"{missing} of {len(responses)} responses", " ".join(cause.split())[:200]
            )

    def _stop_for_verdicts(self, on: str, cause: str) -> NoReturn:
        reason = (
            f"step {self.global_steps}: the judge gave no verdict on {on}, more than "
            f"judge.max_missing={self.step_config.max_missing} ({cause}); see that it answers (or "
            "raise judge.max_missing), then continue with --resume: what was saved is kept"
        )
        leave_reason(self.run_dir, reason)
        raise UserError(reason)

    # ---- verl's hooks, in the order in which verl calls them

    def _init_tokenizer(self) -> None:
        """As verl's; and the data sets in every process learn how to open pictures."""
        super()._init_tokenizer()
        with open_dict(self.config):
            self.config.data.pictures_as_they_are = not is_qwen(self.processor)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            is_discriminator = role == Role.Critic
            worker = (
                self.discriminator_worker_class if is_discriminator else self.policy_worker_class
            )
            self.role_worker_mapping[role] = ray.remote(worker)

    def _setup(self) -> None:
        seed_everything(self.step_config.seed)
        self._start_workers()
        actor = self.config.actor_rollout_ref.actor
        # With one update a step, π_old is the policy of the very forward that is trained.
        self.mini_batches = self.config.data.train_batch_size // actor.ppo_mini_batch_size
        self.on_policy = actor.ppo_epochs == self.mini_batches == 1
        self.image_token = self.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        self.actor_rollout_wg.set_loss_fn(
            partial(
                policy_loss_fn,
                clip_eps=self.step_config.clip_eps,
                kl_coef=self.step_config.kl_coef,
                length_scale=self.step_config.length_scale,
                aggregation=self.step_config.method_spec.aggregation,
                on_policy=self.on_policy,
            )
        )
        if self.use_critic:
            self.discriminator = DiscriminatorTrainer(
                self.critic_wg, self.tokenizer, self.step_config
            )

    def _start_workers(self) -> None:
        """Start verl's worker groups."""
        super()._setup()

    def rollout_manager(self) -> RolloutManager:
        """verl's manager of the rollout workers, for `fit`."""
        manager: RolloutManager = RolloutManager.create(
            self.config,
            self.get_llm_client(),
            self.get_teacher_client(),
            self.get_reward_handles(),
        )
        return manager

    def _build_replay_buffer(self) -> Any:
        return GroupBuffer(
            self.step_config,
            POLL_SECONDS,
            self._replace_questions,
            self._tell,
            self.activity.reached,
            lambda: self.agent_loop_manager.check_alive(),
        )

    def _replace_questions(self, count: int) -> None:
        """Submit questions that are not in the step, in the place of ones that failed in it.

        They are drawn beside the data's own order, which the next steps follow as before.
        """
        draw = random.Random(
            seed_of("replace", self.step_config.seed, self.global_steps, len(self.in_step))
        )
        others = [i for i in range(len(self.train_dataset)) if i not in self.in_step]
        if len(others) < count:
            raise UserError(
                f"{count} questions failed and none is left to take their place; fix the cause "
                "(notes.jsonl), or give more questions, then continue with --resume"
            )
        chosen = draw.sample(others, count)
        rows = collate_fn([self.train_dataset[i] for i in chosen])
        rows["uid"] = np.array([str(uuid.uuid4()) for _ in chosen], dtype=object)
        batch = tu.get_tensordict(rows)
        tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        self._submit_batch_to_rollout(batch)

    def prepare_step(self) -> Any:
        """verl's hook: submit the next questions of the data."""
        self.in_step.clear()
        return super().prepare_step()

    def _submit_batch_to_rollout(self, batch: Any) -> int:
        self.in_step |= {int(index) for index in batch["index"]}
        return int(super()._submit_batch_to_rollout(batch))

    def _tell(self, text: str) -> None:
        leave_note(self.run_dir, self.global_steps, text)

    def on_train_begin(self) -> None:
        """Before the first step, the discriminator is pre-trained, or loaded as it was then."""
        super().on_train_begin()
        if self.discriminator is not None and self.global_steps <= 1:
            with self._sampler_asleep(self.global_steps - 1):
                self.discriminator.pretrain_or_load()

    @contextmanager
    def _sampler_asleep(self, version: int) -> Iterator[None]:
        """The sampler gives back its share of the devices; then it gets the weights again."""
        self.checkpoint_manager.sleep_replicas()
        yield
        self.checkpoint_manager.update_weights(version)

    def on_step_end(self) -> None:
        """verl's hook: the new weights go to the sampler."""
        self.activity.begin("update_weights", self.global_steps)
        super().on_step_end()

    def _validate(self) -> Any:
        """Score the dev split; the judge sees each of its questions once."""
        self.judge_calls += len(self.val_dataset)
        self.activity.begin("testing", self.global_steps, of=len(self.val_dataset))
        found = super()._validate()
        if self.global_steps == 0 and (dev := dev_accuracy(found)) is not None:
            self.step_metrics["dev_accuracy_before"] = dev  # in the line of the first step
        return found

    def _val_metrics_update(
        self,
        data_sources: list[str],
        sample_uids: list[str],
        reward_extra_infos_dict: dict[str, list[Any]],
        sample_turns: list[Any],
        expected_acc_counts: dict[tuple[str, str], int],
    ) -> Any:
        """verl's hook: what the judge gave no verdict on is left out of the dev score."""
        judged = judged_only(
            data_sources, sample_uids, reward_extra_infos_dict, expected_acc_counts
        )
        if missing := len(data_sources) - len(judged.sources):
            on = f"{missing} of {len(data_sources)} responses to dev questions"
            if not judged.sources or missing > self.step_config.max_missing * len(data_sources):
                self._stop_for_verdicts(on, "at the score on the dev split")
            self._tell(f"the judge gave no verdict on {on}, which the dev score leaves out")
        return super()._val_metrics_update(
            *judged[:3], sample_turns, expected_acc_counts=judged.expected
        )

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], **kw: Any
    ) -> None:
        """Write the step's metrics, ours and verl's, to ``metrics.jsonl``; save if it is due."""
        super()._compute_metrics(batch, metrics, timing_raw, **kw)
        verl_metrics = as_json(metrics)
        ours = {"step": self.global_steps, "seconds": timing_raw["step"], **self.step_metrics}
        if (dev := dev_accuracy(metrics)) is not None:
            ours["dev_accuracy"] = dev
        ours["judge_calls"] = self.judge_calls
        metrics.update({f"ril/{key}": value for key, value in self.step_metrics.items()})
        numbers = as_json(ours)
        self.history.append(numbers)
        line = {**numbers, "warnings": warnings(self.history), "verl": verl_metrics}
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._log_sample()
        self.step_metrics, self.judge_calls = {}, 0
        if self.save_due:
            self.save_due = False
            started = time.monotonic()
            # An offloaded model is loaded on its devices to be saved.
            offloads = self.config.actor_rollout_ref.actor.fsdp_config.param_offload
            with self._sampler_asleep(self.global_steps) if offloads else nullcontext():
                self._save_step()
            self.step_metrics["seconds_saving"] = time.monotonic() - started  # the next line has it

    def _maybe_log_val_generations(self, **samples: Any) -> None:
        """verl's hook: responses to dev questions go to the trackers that lack this step's."""
        with open_dict(self.config):
            self.config.trainer.logger = new_at(self.logger, self.global_steps)
        super()._maybe_log_val_generations(**samples)

    def _log_sample(self) -> None:
        """Log a question of the step with its responses to verl's trackers, now and then."""
        if not (self.logger.logger and is_sampled(self.global_steps)):
            return
        if self.sample_tables is None:
            self.sample_tables = SampleTables(self.logger.logger)
        if group := sample_group(self.run_dir, self.global_steps):
            self.sample_tables.log(self.global_steps, sample_rows(self.global_steps, group))

    # ---- checkpoints

    def _save_checkpoint(self) -> None:
        """Remember to save: verl asks before the step's metrics are written.

        The metrics come first, so that a saved step is never without them. When a run resumes, the
        metrics of steps that were not saved are dropped, and those steps are done again.
        """
        self.save_due = True

    def _save_step(self) -> None:
        """Save under another name first, as verl writes in place: a step is whole or absent."""
        self.activity.begin("save_checkpoint", self.global_steps)
        trainer = self.config.trainer
        root = Path(trainer.default_local_dir)
        partial_dir = root / ".partial"
        shutil.rmtree(partial_dir, ignore_errors=True)
        with open_dict(self.config):
            trainer.default_local_dir = str(partial_dir)
            try:
                super()._save_checkpoint()
            finally:
                trainer.default_local_dir = str(root)
        name = f"global_step_{self.global_steps}"
        if part := missing_part(partial_dir / name, discriminator=self.use_critic):
            raise RuntimeError(
                f"step {self.global_steps} was saved without {part}: all nodes must see the run's "
                "folder; put --runs on a disk that they share"
            )
        shutil.rmtree(root / name, ignore_errors=True)
        (partial_dir / name).rename(root / name)
        shutil.rmtree(partial_dir)
        saved = list(steps_in(root, discriminator=self.use_critic).values())
        if self.step_config.export == "last":
            for old in saved[: -self.step_config.keep]:
                shutil.rmtree(old.rename(root / f"{OLD}{old.name}"))
