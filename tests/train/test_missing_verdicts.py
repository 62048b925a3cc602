"""The trainer's rewards where the judge was silent; its own code, on rows made here."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from rilbench.errors import UserError
from rilbench.train.batch import StepBatch
from rilbench.train.nan_guard import STOPPED
from rilbench.train.trainer import RILTrainer

NAN = math.nan


def rows(answer):
    n = len(answer)
    return StepBatch(
        keys=[f"u{i // 4}_{i % 4}_0" for i in range(n)],
        question=[f"q{i // 4}" for i in range(n)],
        source=["student" if i % 4 < 2 else "72b" for i in range(n)],
        text=["x"] * n,
        group=torch.arange(n) // 4,
        own=torch.arange(n) % 4 < 2,
        answer=torch.tensor(answer),
        answer_reward_before_noise=torch.tensor(answer),
        tokens=[2] * n,
        finished=[True] * n,
        image_tokens=[4] * n,
        judge_error=["HTTP 500: oh" if math.isnan(a) else "" for a in answer],
    )


class Trainer(RILTrainer):
    """Without verl's start: what a step computes, not where it is written to."""

    def __init__(self, folder, max_missing, method="ril"):
        self.run_dir, self.global_steps = folder, 3
        self.step_metrics, self.judge_calls = {}, 0
        self.ril = SimpleNamespace(
            method=method,
            max_missing=max_missing,
            continuous_similarity=False,
            teacher_rows_in_loss=True,
        )
        self.config = SimpleNamespace(
            actor_rollout_ref=SimpleNamespace(actor=SimpleNamespace(ppo_epochs=1))
        )

    def _write_back(self, batch, rows, rewards, advantages):
        self.written = rewards, advantages


ANSWER = [1.0, NAN, 0.0, 0.0, 1.0, 0.0, NAN, NAN]
LOGITS = torch.tensor([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0])


def test_a_step_with_missing_verdicts(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.5)
    trainer._reward(None, rows(ANSWER), LOGITS, None)
    rewards, advantages = trainer.written
    assert advantages.tolist() == pytest.approx([2 / 3, 0, -1 / 3, -1 / 3, 0, 0, 0, 0])
    assert rewards.isnan().tolist() == [math.isnan(a) for a in ANSWER], "missing, not 0"
    found = trainer.step_metrics
    assert found["missing_verdicts"] == 3
    assert found["groups_without_signal"] == 0.5
    assert found["answer_reward_student"] == pytest.approx(2 / 3)
    assert found["reward"] == pytest.approx((2 + 1 + 1 + 1 + 0) / 5)
    lines = (tmp_path / "rows" / "step_3.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert [row["answer"] for row in kept] == [None if math.isnan(a) else a for a in ANSWER]
    assert [row.get("judge_error") for row in kept].count("HTTP 500: oh") == 3
    assert not (tmp_path / STOPPED).exists()


def test_above_the_bound_the_run_stops_in_one_line(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.05)
    with pytest.raises(UserError, match=r"no verdict on 3 of 8 responses.*HTTP 500: oh.*--resume"):
        trainer._reward(None, rows(ANSWER), LOGITS, None)
    assert not hasattr(trainer, "written"), "nothing is learned from it"
    assert (tmp_path / "rows" / "step_3.jsonl").exists()
    assert (tmp_path / STOPPED).read_text().count("\n") == 1


def test_imitation_needs_no_verdict(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.0, method="imitation")
    trainer._reward(None, rows(ANSWER), LOGITS, None)
    assert trainer.step_metrics["missing_verdicts"] == 3
    assert trainer.written[1].tolist() == [0.25, -0.75, 0.25, 0.25, -0.5, -0.5, 0.5, 0.5]


def test_a_broken_discriminator_is_not_taken_for_a_silent_judge(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.5)
    with pytest.raises(RuntimeError, match="reward not finite"):
        trainer._reward(None, rows([1.0] * 8), LOGITS * NAN, None)
