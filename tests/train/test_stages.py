import pytest

from rilbench.errors import UserError
from rilbench.recipe import load_recipe
from rilbench.train import stages


@pytest.fixture
def recipe():
    return load_recipe("both", "nano")


def test_two_processes_do_not_train_one_run(tmp_path, recipe):
    from filelock import FileLock

    run = stages.open_run(tmp_path / "r", recipe, resume=False)
    with FileLock(run.folder / ".lock"), pytest.raises(UserError, match="another process"):
        stages.train(run, view=None)


def test_judge_by_name_needs_its_address():
    recipe = load_recipe("both", "nano", overrides=["judge.model=Qwen/Qwen2.5-32B-Instruct"])
    with pytest.raises(UserError, match=r"judge\.url"), stages._judge(recipe):
        pass
