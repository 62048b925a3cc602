"""The groups of a step as they arrive: a failed one is replaced, and waiting has a limit.

verl's replay buffer waits until every prompt is answered, for ever, and hands on groups with holes.
Here a group of which a response failed (a picture, a request, a time limit) is dropped whole and
another question takes its place, so that a step keeps its size and divides among the ranks as
before. Too many failures, or no response for too long, stop the run with the reason.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from rilbench.errors import UserError
from rilbench.train.step_config import StepConfig

FAILED = "failed"
"""Tag of a prompt in TransferQueue: its question, and why a response to it failed."""

_WARN_AFTER = 1 / 6
"""Share of the time limit after which waiting is worth a warning."""
_WORKERS_FIRST = 1.5
"""A response has the time limit itself (`rilbench.train.verl.rollout_worker`): the whole run is
stopped only where no worker reports any more."""


class GroupBuffer(ReplayBuffer):  # type: ignore[misc]
    """verl's buffer of one synchronous step.

    Args:
        step: the step's settings.
        poll_seconds: how often to look for finished groups.
        replace: submits that many other questions.
        tell: takes one line for the user.
        reached: takes the number of responses that have come.
        check: stops the run where nobody is left to wait for.
    """

    def __init__(
        self,
        step: StepConfig,
        poll_seconds: float,
        replace: Callable[[int], Any],
        tell: Callable[[str], None],
        reached: Callable[[int], None],
        check: Callable[[], None],
    ) -> None:
        super().__init__(
            trainer_mode="sync",
            trainer_config={},
            max_off_policy_threshold=None,
            max_off_policy_strategy="drop",
            sampler_kwargs={},
            poll_interval=poll_seconds,
            refill_fn=replace,
        )
        self.step, self.tell, self.reached, self.check = step, tell, reached, check
        self.failed: list[str] = []
        """Questions of the step that failed, with the reason."""
        self._questions = 0
        self._seen, self._seen_at, self._warned = -1, 0.0, False

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> Any:
        """All groups of a step, or all answers to the dev split, when they are there.

        Raises:
            UserError: more than ``data.max_failed`` of the questions failed, or nothing came for
                ``schedule.max_wait`` minutes.
        """
        self.failed, self._questions = [], batch_size
        self._seen, self._seen_at, self._warned = -1, time.monotonic(), False
        return super().sample(
            global_steps=global_steps, partition_id=partition_id, batch_size=batch_size
        )

    def _terminal_eviction_reasons(
        self, global_steps: int, partition_id: str
    ) -> tuple[set[str], set[str], set[str], Counter[float]]:
        """verl's hook: which groups to replace. Of the dev split none: what came is scored."""
        failed = set() if partition_id == "val" else set(self.failure_keys[partition_id])
        return set(), set(), failed, Counter()

    def _evict_terminal_groups(self, global_steps: int, partition_id: str, reasons: Any) -> Any:
        """verl's hook: drop groups. They are counted and named first."""
        if reasons[2]:
            self._count_failed(partition_id, reasons[2])
        return super()._evict_terminal_groups(global_steps, partition_id, reasons)

    def _select_prompt_uids(self, partition_id: str, sampleable_keys: set[str], size: int) -> Any:
        """verl's hook: choose groups. Of the dev split what failed is told."""
        if partition_id == "val" and (failed := sampleable_keys & self.failure_keys["val"]):
            named = "; ".join(self._named(partition_id, failed)[:3])
            self.tell(f"{len(failed)} questions of data.dev failed and count as wrong ({named})")
        return super()._select_prompt_uids(partition_id, sampleable_keys, size)

    def _count_failed(self, partition_id: str, uids: set[str]) -> None:
        named = self._named(partition_id, uids)
        self.failed += named
        share = self.step.max_failed
        if len(self.failed) > max(1, share * self._questions):
            raise UserError(
                f"{len(self.failed)} of {self._questions} questions failed, more than "
                f"data.max_failed={share} ({'; '.join(self.failed[:3])}); fix the cause (or raise "
                "data.max_failed), then continue with --resume"
            )
        for each in named:
            self.tell(f"{each}; another question takes its place")

    @staticmethod
    def _named(partition_id: str, uids: set[str]) -> list[str]:
        """The failed questions, each with why."""
        tags = (tq.kv_list(partition_id) or {}).get(partition_id, {})
        unknown = "a question failed (logs/trainer.log says why)"
        return sorted(str(tags.get(uid, {}).get(FAILED, unknown)) for uid in uids)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        """verl's hook between two looks at the queue: has anything come since the last?"""
        came = len(self.partitions[partition_id]) + len(self.failed)
        self.reached(came)
        self.check()
        now = time.monotonic()
        if came != self._seen:
            self._seen, self._seen_at, self._warned = came, now, False
        waited, limit = now - self._seen_at, 60 * self.step.max_wait
        if limit and waited > _WORKERS_FIRST * limit:
            raise UserError(
                f"no response came for {waited / 60:.1f} minutes, {came} were there; see "
                "logs/trainer.log and the judge's server (or raise schedule.max_wait), then "
                "continue with --resume"
            )
        if limit and waited > _WARN_AFTER * limit and not self._warned:
            self._warned = True
            self.tell(
                f"no response came for {waited / 60:.1f} minutes, {came} are there; the run stops "
                f"after {_WORKERS_FIRST * self.step.max_wait:g}"
            )
        return float(super()._wait_for_next_poll(partition_id, last_debug_time))
