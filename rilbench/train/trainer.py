"""Algorithm 2 on verl: the synchronous PPO trainer with the order of a RIL step.

sample G rows and take the saved rows (agent loop) → update the discriminator by Equation 1 →
rewards and advantages with the discriminator just updated → update the policy by Equation 2.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
import transfer_queue as tq
from omegaconf import open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.utils import Role
from verl.utils.debug import marked_timer

import rilbench.train.verl.cpu_rollout  # noqa: F401  registers the CPU's rollout engine
from rilbench.errors import UserError
from rilbench.ril.advantage import dr_grpo_advantages, grpo_advantages, judged_advantages
from rilbench.ril.rewards import continuous_similarity, similarity_reward, total_reward
from rilbench.train.batch import (
    StepBatch,
    by_length,
    in_fixed_order,
    nested,
    read_old_log_probs,
    read_rows,
    write_record,
)
from rilbench.train.discriminator_trainer import DiscriminatorTrainer
from rilbench.train.health import warnings
from rilbench.train.losses import policy_step
from rilbench.train.metrics import groups_without_signal, row_figures, token_counts
from rilbench.train.nan_guard import check_finite, leave_reason
from rilbench.train.pipeline.step_checkpoint import missing_part, steps_in
from rilbench.train.verl.workers import DiscriminatorWorker, PolicyWorker
from rilbench.train.warm_trainer import ReusingTrainer

POLL_SECONDS = 0.05
"""How often to look for finished rollouts; verl's own 2 s would be most of a small step."""


class RILTrainer(ReusingTrainer):
    """verl's trainer with a discriminator in the critic's slot; its settings are ``config.ril``.

    Without a critic it is the Dr.GRPO or GRPO baseline: same code, no discriminator.
    """

    def __init__(self, config: Any) -> None:
        self.ril = config.ril
        self.run_dir = Path(config.ril.run_dir)
        self.step_metrics: dict[str, float] = {}
        self.judge_calls = 0
        self.save_due = False
        done = self.run_dir / "metrics.jsonl"
        lines = done.read_text(encoding="utf-8").splitlines() if done.exists() else []
        self.history: list[dict[str, Any]] = [json.loads(line) for line in lines]
        super().__init__(config)

    # ---- verl's hooks

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        for role in self.role_worker_mapping:
            worker = DiscriminatorWorker if role == Role.Critic else PolicyWorker
            self.role_worker_mapping[role] = ray.remote(worker)

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        buffer.poll_interval = POLL_SECONDS
        return buffer

    def _setup(self) -> None:
        super()._setup()
        actor = self.config.actor_rollout_ref.actor
        one_update = actor.ppo_epochs == 1 and (
            actor.ppo_mini_batch_size == self.config.data.train_batch_size
        )
        self.on_policy = one_update
        self.image_token = self.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        self.actor_rollout_wg.set_loss_fn(
            partial(
                policy_step,
                clip=self.ril.clip,
                beta=self.ril.beta,
                length_scale=self.ril.length_scale,
                aggregation="sequence-mean" if self.ril.method == "grpo" else "token-sum",
                on_policy=self.on_policy,
            )
        )
        self.game = None
        if self.use_critic:
            self.game = DiscriminatorTrainer(self.critic_wg, self.tokenizer, self.ril)

    def on_train_begin(self) -> None:
        """Pre-train the discriminator, or take the pre-trained one, before the first step."""
        super().on_train_begin()
        if self.game is not None and self.global_steps <= 1:
            self.game.begin()

    def _validate(self) -> Any:
        """Score the dev split; the judge sees each of its questions once."""
        self.judge_calls += len(self.val_dataset)
        return super()._validate()

    def _step_once(
        self, metrics: dict[str, Any], timing_raw: dict[str, float], sample_batch_size: int
    ) -> KVBatchMeta:
        """One step of Algorithm 2."""
        started = time.monotonic()
        with marked_timer("gen", timing_raw):
            batch = self._sample(metrics, sample_batch_size)
        batch = self._balance_batch(in_fixed_order(batch), metrics=metrics)
        if self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node == 1 and self.on_policy:
            batch = by_length(batch)  # no ranks to balance, one mini-batch: any order will do
        rows = read_rows(batch, self.tokenizer, self.image_token, self.ril.own_rows)
        with marked_timer("discriminator", timing_raw):
            logits = self._discriminate(rows)
        old_log_probs = None
        if not self.on_policy:
            with marked_timer("old_log_prob", timing_raw):
                batch = self._compute_old_log_prob(batch, metrics=metrics)
                old_log_probs = read_old_log_probs(batch)
        if self.use_reference_policy:
            with marked_timer("ref", timing_raw):
                batch = self._compute_ref_log_prob(batch, metrics=metrics)
        with marked_timer("adv", timing_raw):
            self._reward(batch, rows, logits, old_log_probs)
        with marked_timer("update_actor", timing_raw):
            batch = self._update_actor(batch, metrics=metrics)
        self._summarise_policy(metrics)
        self._check_finite("discriminator_loss", "discriminator_grad_norm")
        self._check_finite("policy_loss", "kl", "entropy", "grad_norm")
        self.step_metrics["seconds_after_sampling"] = time.monotonic() - started - timing_raw["gen"]
        return batch

    def _compute_metrics(
        self, batch: KVBatchMeta, metrics: dict[str, Any], timing_raw: dict[str, float], **kw: Any
    ) -> None:
        """Add our figures to verl's, and keep both in ``metrics.jsonl``."""
        super()._compute_metrics(batch, metrics, timing_raw, **kw)
        ours = {"step": self.global_steps, "seconds": timing_raw["step"], **self.step_metrics}
        dev = [v for k, v in metrics.items() if k.startswith("val-core/") and "/mean@" in k]
        if dev:
            ours["dev_accuracy"] = float(sum(dev) / len(dev))
        metrics.update({f"ril/{key}": value for key, value in self.step_metrics.items()})
        verl = {k: _number(v) for k, v in metrics.items() if not k.startswith("ril/")}
        ours["judge_calls"] = self.judge_calls
        self.judge_calls = 0
        numbers = {k: _number(v) for k, v in ours.items()}
        self.history.append(numbers)
        line = {**numbers, "warnings": warnings(self.history), "verl": verl}
        with (self.run_dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.step_metrics = {}
        if self.save_due:
            self.save_due = False
            self._save_step()

    def _save_checkpoint(self) -> None:
        """Remember to save: verl asks before the step's figures are written.

        The figures come first, so that a saved step is never without them. Figures of a step that
        was not saved are dropped when the run resumes, and the step is done again.
        """
        self.save_due = True

    def _save_step(self) -> None:
        """Save, so that a step's folder is complete or not there: verl writes files in place."""
        trainer = self.config.trainer
        root = Path(trainer.default_local_dir)
        partial_dir = root / ".partial"
        shutil.rmtree(partial_dir, ignore_errors=True)
        with open_dict(self.config):
            trainer.default_local_dir = str(partial_dir)
            try:
                super()._save_checkpoint()  # verl's
            finally:
                trainer.default_local_dir = str(root)
        name = f"global_step_{self.global_steps}"
        if lacks := missing_part(partial_dir / name, discriminator=self.use_critic):
            raise RuntimeError(
                f"step {self.global_steps} was saved without {lacks}: all nodes must see the run's "
                "folder; put --runs on a disk that they share"
            )
        shutil.rmtree(root / name, ignore_errors=True)
        (partial_dir / name).rename(root / name)
        shutil.rmtree(partial_dir)
        saved = list(steps_in(root, discriminator=self.use_critic).values())
        if self.ril.export == "last":
            for old in saved[: -self.ril.keep]:
                shutil.rmtree(old.rename(root / f".old-{old.name}"))

    # ---- a step's parts

    def _sample(self, metrics: dict[str, Any], questions: int) -> KVBatchMeta:
        self.on_sample_begin()
        batch, found = self.replay_buffer.sample(
            global_steps=self.global_steps, partition_id="train", batch_size=questions
        )
        metrics.update(found)
        batch.extra_info["temperature"] = self.config.actor_rollout_ref.rollout.temperature
        self.on_sample_end()
        wanted = questions * self.config.actor_rollout_ref.rollout.n
        if len(batch) != wanted:
            raise RuntimeError(
                f"step {self.global_steps}: {wanted - len(batch)} of {wanted} rows failed to come; "
                "the errors stand above"
            )
        return batch

    def _discriminate(self, rows: StepBatch) -> torch.Tensor | None:
        """Update the discriminator on this step's rows, then return its new logits (N,)."""
        if self.game is None:
            return None
        logits, figures = self.game.play(rows)
        self.step_metrics |= figures
        return logits

    def _reward(
        self,
        batch: KVBatchMeta,
        rows: StepBatch,
        logits: torch.Tensor | None,
        old_log_probs: list[float] | None,
    ) -> None:
        """Rewards and advantages of all rows, written back for verl's update and metrics."""
        self.judge_calls += len(rows)
        zeros = torch.zeros(len(rows))
        similarity = zeros
        if logits is not None:
            graded = self.ril.continuous_similarity
            similarity = continuous_similarity(logits) if graded else similarity_reward(logits)
        answer = zeros if self.ril.method == "imitation" else rows.answer
        rewards = total_reward(similarity, answer)
        earned = rewards[~answer.isnan()]
        estimate = grpo_advantages if self.ril.method == "grpo" else dr_grpo_advantages
        advantages = zeros * torch.nan
        if bool(earned.isfinite().all()):
            advantages = judged_advantages(similarity, answer, rows.group, rows.own, estimate)
        learned = advantages
        if not self.ril.teacher_rows_in_loss:
            learned = advantages.where(rows.own, 0.0)
        probability = zeros + 0.5 if logits is None else torch.sigmoid(logits)
        write_record(
            self.run_dir / "rollouts" / f"step_{self.global_steps}.jsonl",
            rows,
            similarity,
            probability,
            learned,
            old_log_probs,
        )
        self._check_judged(rows, answer)
        self.step_metrics |= row_figures(rows, similarity) | {"reward": earned.mean().item()}
        self._check_finite("discriminator_loss", "discriminator_grad_norm", "reward")
        self._write_back(batch, rows, rewards, learned)
        self._summarise_rewards(rows, advantages, learned)

    def _check_finite(self, *names: str) -> None:
        """Stop before anything of this step is saved as a checkpoint; its rows are saved."""
        numbers = {name: self.step_metrics[name] for name in names if name in self.step_metrics}
        check_finite(self.run_dir, f"step {self.global_steps}", numbers)

    def _check_judged(self, rows: StepBatch, answer: torch.Tensor) -> None:
        """Stop where too many rows have no verdict that is needed; the rows are saved."""
        missing = int(answer.isnan().sum())
        if missing <= self.ril.max_missing * len(rows):
            return
        said = next((why for why in rows.judge_error if why), "it did not say why")
        reason = (
            f"step {self.global_steps}: the judge gave no verdict on {missing} of {len(rows)} "
            f"responses, more than judge.max_missing={self.ril.max_missing} of them "
            f"({' '.join(said.split())[:200]}); see that it answers, then continue with --resume: "
            "what was saved is kept"
        )
        leave_reason(self.run_dir, reason)
        raise UserError(reason)

    def _summarise_rewards(
        self, rows: StepBatch, advantages: torch.Tensor, learned: torch.Tensor
    ) -> None:
        """Figures of the advantages, before and after teachers' rows are left out of the loss."""
        sums = torch.zeros(int(rows.group.max()) + 1).index_add_(0, rows.group, learned)
        self.step_metrics |= {
            "advantage_group_sum_max": sums.abs().max().item(),
            "groups_without_signal": groups_without_signal(advantages, rows.group),
            **token_counts(
                rows,
                teacher_rows_in_loss=self.ril.teacher_rows_in_loss,
                passes=self.config.actor_rollout_ref.actor.ppo_epochs,
            ),
        }

    def _write_back(
        self, batch: KVBatchMeta, rows: StepBatch, rewards: torch.Tensor, advantages: torch.Tensor
    ) -> None:
        """verl wants token-level fields: the reward on the last token, the advantage on each."""
        lengths = rows.tokens
        scores = [torch.zeros(n) for n in lengths]
        for score, reward in zip(scores, rewards, strict=True):
            score[-1] = reward
        spread = [torch.full((n,), a.item()) for n, a in zip(lengths, advantages, strict=True)]
        fields = {"rm_scores": nested(scores), "advantages": nested(spread)}
        own = [torch.full((n,), o) for n, o in zip(lengths, rows.own.tolist(), strict=True)]
        fields["own"] = nested(own)
        fields["returns"] = nested(spread)
        fields["values"] = nested([torch.zeros(n) for n in lengths])
        written = tq.kv_batch_put(
            keys=batch.keys,
            partition_id=batch.partition_id,
            fields=TensorDict(fields, batch_size=len(rows)),
        )
        if batch.fields is not None:
            # verl's old log-probabilities came with a list of the fields that were there then; the
            # update reads no others, and would go without the reference's, too.
            batch.fields = written.fields

    def _summarise_policy(self, metrics: dict[str, Any]) -> None:
        tokens = max(1.0, float(metrics.get("actor/kl_tokens", 0.0)))
        self.step_metrics |= {
            "kl": float(metrics["actor/kl"]),
            "policy_loss": float(metrics["actor/policy_loss"]),
            "entropy": float(metrics["actor/entropy_sum"])
            / max(1.0, float(metrics["actor/own_tokens"])),
            "ratio_mean": float(metrics["actor/ratio_sum"]) / tokens,
            "ratio_max": float(metrics["actor/ratio_max"]),
            "clip_fraction": float(metrics["actor/clipped"]) / tokens,
            "grad_norm": float(metrics["actor/grad_norm"]),
            "learning_rate": float(metrics["actor/lr"]),
        }


def _number(value: Any) -> Any:
    """A JSON number; what is not finite becomes null."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if isinstance(value, int) else number
