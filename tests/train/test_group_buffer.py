"""What the buffer of a step does with failed groups, and with waiting."""

from types import SimpleNamespace

import pytest

from rilbench.errors import UserError
from rilbench.train import group_buffer
from rilbench.train.group_buffer import FAILED, GroupBuffer


@pytest.fixture
def queue(monkeypatch):
    """TransferQueue with four prompts of two rollouts each; a test sets their tags."""
    tags = {
        uid: {"is_prompt": True, "status": "finished", "global_steps": 1} for uid in ("a", "b", "c")
    }
    rollouts = {f"{uid}_{i}_0": {"status": "success"} for uid in tags for i in range(2)}
    items = {"train": {**tags, **rollouts}}

    def clear(keys, partition_id):
        for key in keys:
            items[partition_id].pop(key, None)

    fake = SimpleNamespace(kv_list=lambda *_: items, kv_clear=clear)
    monkeypatch.setattr(group_buffer, "tq", fake)
    monkeypatch.setattr("verl.trainer.ppo.v1.replay_buffer.tq", fake)
    return items


def buffer(queue, max_failed=0.5, max_wait=1.0, check=lambda: None):
    told, replaced = [], []

    def replace(count):
        replaced.append(count)
        for number in range(count):
            uid = f"new{len(replaced)}{number}"
            queue["train"][uid] = {"is_prompt": True, "status": "finished", "global_steps": 1}
            queue["train"] |= {f"{uid}_{i}_0": {"status": "success"} for i in range(2)}

    step = SimpleNamespace(max_failed=max_failed, max_wait=max_wait)
    made = GroupBuffer(step, 0.01, replace, told.append, lambda _: None, check)
    return made, told, replaced


def sample(made):
    batch, metrics = made.sample(1, "train", 3)
    return batch.keys, metrics


def test_whole_groups_are_handed_on_as_they_are(queue):
    made, told, replaced = buffer(queue)
    keys, _ = sample(made)
    assert len(keys) == 6
    assert (told, replaced, made.failed) == ([], [], [])


def test_a_failed_group_is_dropped_whole_and_replaced(queue):
    queue["train"]["b"] |= {"status": "failure", FAILED: "question q7 failed (OSError: torn)"}
    del queue["train"]["b_1_0"]  # its other rollout came
    made, told, replaced = buffer(queue)
    keys, metrics = sample(made)
    assert replaced == [1]
    assert {key.split("_")[0] for key in keys} == {"a", "c", "new10"}
    assert len(keys) == 6
    assert made.failed == ["question q7 failed (OSError: torn)"]
    assert told == ["question q7 failed (OSError: torn); another question takes its place"]
    assert metrics["training/rollout_failure/evicted_samples"] == 1


def test_more_than_the_share_stop_the_run_with_names_and_remedy(queue):
    for uid in ("a", "b"):
        queue["train"][uid] |= {"status": "failure", FAILED: f"question {uid} failed (x)"}
    made, _, _ = buffer(queue, max_failed=0.5)
    with pytest.raises(
        UserError, match=r"2 of 3 questions .*max_failed=0\.5 \(question a .*--resume"
    ):
        sample(made)


def test_one_question_never_stops_a_small_step(queue):
    queue["train"]["a"] |= {"status": "failure"}
    made, told, _ = buffer(queue, max_failed=0.0)
    sample(made)
    assert "logs/trainer.log" in told[0]


def test_waiting_is_told_and_has_a_limit(queue):
    queue["train"]["c"]["status"] = "running"
    made, told, _ = buffer(queue, max_wait=0.01)
    with pytest.raises(UserError, match=r"no response came for 0\.0 minutes, 6 were there"):
        sample(made)
    (warning,) = told
    assert warning.endswith("the run stops after 0.015")


def test_nobody_is_waited_for_who_is_gone(queue):
    def check():
        raise UserError("1 of 2 nodes are gone")

    queue["train"]["c"]["status"] = "running"
    made, *_ = buffer(queue, check=check)
    with pytest.raises(UserError, match="are gone"):
        sample(made)
