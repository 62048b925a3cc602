"""The trainer's rewards and its stops, by its own code, on responses made here without verl."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from step_batches import step_batch

from rilbench.config import load_recipe
from rilbench.errors import UserError
from rilbench.train.nan_guard import STOPPED
from rilbench.train.step_config import StepConfig
from rilbench.train.trainer import RILTrainer

NAN = math.nan
ANSWER = [1.0, NAN, 0.0, 0.0, 1.0, 0.0, NAN, NAN]
LOGITS = torch.tensor([-1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0])


class Trainer(RILTrainer):
    """Without verl's start: what a step computes, not where it is written to."""

    def __init__(self, folder, max_missing, method="ril", rewards=None):
        recipe = load_recipe("both", "nano", method)
        config = StepConfig.from_recipe(recipe, folder)
        self.step_config = dataclasses.replace(config, max_missing=max_missing)
        self.run_dir, self.global_steps = folder, 3
        self.step_metrics, self.judge_calls = {}, 0
        self.rewards = rewards or {}

    def recorded(self):
        path = self.run_dir / "rollouts" / "step_3.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_step_with_missing_verdicts(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.5)
    signal = trainer._score(step_batch(ANSWER), LOGITS, None)
    expected = [2 / 3, 0, -1 / 3, -1 / 3, 0, 0, 0, 0]
    assert signal.learned_advantage.tolist() == pytest.approx(expected)
    assert signal.reward.isnan().tolist() == [math.isnan(a) for a in ANSWER], "missing, not 0"
    metrics = trainer.step_metrics
    assert metrics["missing_verdicts"] == 3
    assert metrics["groups_without_signal"] == 0.5
    assert metrics["answer_reward_student"] == pytest.approx(2 / 3)
    assert metrics["reward"] == pytest.approx((2 + 1 + 1 + 1 + 0) / 5)
    lines = trainer.recorded()
    verdicts = [None if math.isnan(a) else a for a in ANSWER]
    assert [line["answer_reward"] for line in lines] == verdicts
    assert [line.get("judge_error") for line in lines].count("HTTP 500: oh") == 3
    assert not (tmp_path / STOPPED).exists()


def test_above_the_bound_the_run_stops_in_one_line(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.05)
    with pytest.raises(UserError, match=r"no verdict on 3 of 8 responses.*HTTP 500: oh.*--resume"):
        trainer._score(step_batch(ANSWER), LOGITS, None)
    assert len(trainer.recorded()) == 8
    assert (tmp_path / STOPPED).read_text().count("\n") == 1


def test_a_dev_split_without_enough_verdicts_stops_the_run_in_one_line(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.05)
    infos = {"acc": [1.0, NAN], "reward": [1.0, NAN]}
    expected = {("s", "a"): 1, ("s", "b"): 1}
    with pytest.raises(UserError, match=r"no verdict on 1 of 2 responses to dev.*--resume"):
        trainer._val_metrics_update(["s", "s"], ["a", "b"], infos, [2, 2], expected)
    trainer.step_config = dataclasses.replace(trainer.step_config, max_missing=0.5)
    found = trainer._val_metrics_update(["s", "s"], ["a", "b"], infos, [2, 2], expected)
    assert found["val-core/s/acc/mean@1"] == 1.0
    assert "no verdict on 1 of 2" in (tmp_path / "notes.jsonl").read_text()


def test_the_discriminator_is_pre_trained_while_the_sampler_sleeps(tmp_path):
    """It holds its share of the device from verl's `init` on."""
    trainer, calls = Trainer(tmp_path, max_missing=0.0), []
    trainer.global_steps = 1
    trainer.checkpoint_manager = SimpleNamespace(
        sleep_replicas=lambda: calls.append("sleep"),
        update_weights=lambda version: calls.append(f"weights {version}"),
    )
    pretrain = SimpleNamespace(pretrain_or_load=lambda: calls.append("pre-train"))
    trainer.discriminator = pretrain
    trainer.on_train_begin()
    assert calls == ["sleep", "pre-train", "weights 0"]
    trainer.global_steps = 5
    trainer.on_train_begin()
    assert len(calls) == 3, "a resumed run has it in its checkpoint"


def test_imitation_needs_no_verdict(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.0, method="imitation")
    signal = trainer._score(step_batch(ANSWER), LOGITS, None)
    assert trainer.step_metrics["missing_verdicts"] == 3
    expected = [0.25, -0.75, 0.25, 0.25, -0.5, -0.5, 0.5, 0.5]
    assert signal.learned_advantage.tolist() == expected


def test_a_teacher_bonus_needs_no_discriminator(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.0, method="teacher-bonus")
    signal = trainer._score(step_batch([1.0, 0.0, 0.0, 1.0] * 2), None, None)
    assert signal.similarity_reward.tolist() == [0.0, 0.0, 1.0, 1.0] * 2
    assert signal.learned_advantage.tolist() == [0.0, -1.0, 0.0, 1.0] * 2
    assert trainer.step_metrics["similarity_reward_teacher"] == 1.0


def test_a_broken_discriminator_is_not_taken_for_a_silent_judge(tmp_path):
    trainer = Trainer(tmp_path, max_missing=0.5)
    with pytest.raises(RuntimeError, match="reward not finite"):
        trainer._score(step_batch([1.0] * 8), LOGITS * NAN, None)


def test_a_registered_reward_is_added_recorded_and_measured(tmp_path):
    def brevity(inputs):
        assert inputs.questions[5] == "question 1"
        assert inputs.references[5] == "reference 1"
        return [0.5 * own for own in inputs.is_student]

    plain = Trainer(tmp_path / "a", max_missing=1.0)
    added = Trainer(tmp_path / "b", max_missing=1.0, rewards={"brevity": brevity})
    batch = step_batch([1.0, 0.0, 0.0, 1.0] * 2)
    before, after = (t._score(batch, LOGITS, None) for t in (plain, added))
    assert (after.reward - before.reward).tolist() == [0.5, 0.5, 0.0, 0.0] * 2
    assert (after.advantage - before.advantage).tolist() == [0.25, 0.25, -0.25, -0.25] * 2
    assert added.recorded()[0]["extra_rewards"] == {"brevity": 0.5}
    assert added.step_metrics["reward_brevity_student"] == 0.5
    assert "extra_rewards" not in plain.recorded()[0]


@pytest.mark.parametrize(
    ("reward", "error"),
    [
        (lambda inputs: [NAN] * len(inputs), "'mine' is NaN or infinite for 8 of 8 responses"),
        (lambda inputs: [0.0], r"'mine' returned shape \(1,\) for 8 responses"),
        (lambda inputs: torch.zeros(8, 2), r"'mine' returned shape \(8, 2\)"),
        (lambda inputs: None, r"'mine' failed \(.*; let it return one number for each response"),
        (lambda inputs: ["a"] * 8, r"'mine' failed \(.*; let it return one number"),
        (lambda inputs: inputs.none, r"'mine' failed \(AttributeError: .*; let it return one"),
    ],
)
def test_a_reward_that_returns_nonsense_stops_the_run_in_one_line(tmp_path, reward, error):
    trainer = Trainer(tmp_path, max_missing=1.0, rewards={"mine": reward})
    with pytest.raises(UserError, match=error):
        trainer._score(step_batch([1.0] * 8), LOGITS, None)
    assert Path(tmp_path / STOPPED).read_text().count("\n") == 1
