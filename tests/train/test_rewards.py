import pytest
from command import refused, run
from plugin_package import install_plugin

from rilbench.errors import UserError
from rilbench.ril.rewards import RewardInputs, compute_rewards
from rilbench.train.rewards import load_rewards

INPUTS = RewardInputs(["q", "q"], ["a", "a"], ["one", "three"], [True, False], [2, 4])
SOURCE = "def brevity(inputs):\n    return [1 / n for n in inputs.num_tokens]\n"


def test_a_reward_is_a_function_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    rewards = load_rewards([f"{tmp_path}/mine.py:brevity"])
    assert compute_rewards(rewards, INPUTS)["brevity"].tolist() == [0.5, 0.25]


def test_a_reward_is_an_entry_point_of_another_package(tmp_path, monkeypatch):
    code = f"{SOURCE}\nplugin = brevity\n"
    install_plugin(monkeypatch, tmp_path, "rilbench.rewards", "short", code)
    rewards = load_rewards(["short"])
    assert compute_rewards(rewards, INPUTS)["short"].tolist() == [0.5, 0.25]
    with pytest.raises(UserError, match=r"no reward 'long'; installed: short; name a function"):
        load_rewards(["long"])


@pytest.mark.parametrize(
    ("code", "name", "error"),
    [
        ("raise RuntimeError('oh')", "brevity", "RuntimeError: oh.*fix it"),
        ("brevity = 3", "brevity", "is not a function"),
        ("", "brevity", "has no function 'brevity'"),
    ],
)
def test_a_file_that_is_no_reward_is_refused(tmp_path, code, name, error):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=error):
        load_rewards([f"{tmp_path}/mine.py:{name}"])


def test_a_missing_file_or_a_name_given_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        load_rewards(["nowhere.py:brevity"])
    (tmp_path / "mine.py").write_text(SOURCE)
    with pytest.raises(UserError, match="twice"):
        load_rewards([f"{tmp_path}/mine.py:brevity"] * 2)


def test_the_command_refuses_a_broken_plugin_before_anything_is_spent(tmp_path, monkeypatch):
    install_plugin(monkeypatch, tmp_path, "rilbench.rewards", "short", "import nowhere_at_all\n")
    result = run(
        *("train", "--recipe", "both", "--student", "nano", "--run", "r"),
        *("--set", "reward.extra=[short]"),
        cwd=tmp_path,
    )
    refused(result, "rilbench.rewards", "'short'", "short_plugin", "nowhere_at_all", "uninstall")
    assert not (tmp_path / "runs").exists()


def test_a_method_without_a_loop_of_rewards_refuses_them(tmp_path):
    result = run(
        *("train", "--recipe", "both", "--student", "nano", "--method", "sft", "--dry-run"),
        *("--set", "sft.steps=2", "--set", "reward.extra=[short]"),
        cwd=tmp_path,
    )
    refused(result, "reward.extra changes nothing with method=sft")
